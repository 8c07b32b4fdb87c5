"""The entry points of `vmsim`, of kubectl's plugin and of `python -m controller`.

Guarantees: Ctrl-C while a command is imported, or after its work, exits at once, without output, with code 130. A
signal handler does that, because modules that are being imported may swallow a KeyboardInterrupt, print it or turn it
into another error. A command that handles Ctrl-C itself calls `raise_on_interrupt` first.

Nothing that is slow to import is imported before the handler is installed.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130  # as in controller.cli.exits, which takes typer to import


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _exit_on_interrupt()
    try:
        from controller.cli import main as commands  # noqa: PLC0415

        commands.main(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        _exit_on_interrupt()


def complete_for_kubectl() -> None:
    """Print the completions for which kubectl calls `kubectl_complete-vmsim`, and exit."""
    _exit_on_interrupt()
    from controller.cli import main as commands  # noqa: PLC0415

    commands.complete_for_kubectl()


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, which is Python's default."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_on_interrupt() -> None:
    """Let Ctrl-C exit at once, unless SIGINT is ignored, as it is in a shell's background job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)
