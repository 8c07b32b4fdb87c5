"""How commands end: exit codes, and one line that says what went wrong."""

from __future__ import annotations

from typing import Final, NoReturn

import typer

FAILED: Final = 1
INTERRUPTED: Final = 130


class CommandError(Exception):
    """What went wrong, in one line for a person."""


def fail(message: str) -> NoReturn:
    """Tell a person what went wrong, and exit with code 1."""
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(FAILED)
