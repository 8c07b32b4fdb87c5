"""Exit codes, and the error that ends a command with one line."""

from __future__ import annotations

from typing import Final, NoReturn

import typer

FAILED: Final = 1
BAD_ARGUMENT: Final = 2
NO_ANSWER: Final = 3
INTERRUPTED: Final = 130


class CommandError(Exception):
    """An expected failure of a command; the message is printed on one line."""


def fail(message: str, *, code: int = FAILED) -> NoReturn:
    """Print an error line on standard error, and exit."""
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(code)
