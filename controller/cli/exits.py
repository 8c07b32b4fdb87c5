"""Exit codes, and the error that ends a command with one line."""

from __future__ import annotations

from typing import Final, NoReturn

import typer

FAILED: Final = 1
INTERRUPTED: Final = 130


class CommandError(Exception):
    """An expected failure of a command; the message is printed on one line."""


def fail(message: str) -> NoReturn:
    """Print an error line on standard error, and exit with code 1."""
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(FAILED)
