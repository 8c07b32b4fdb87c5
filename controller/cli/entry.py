"""Where the commands begin: what the shell, kubectl and `python -m controller` start.

Guarantees: Ctrl-C ends a command that is still being loaded, or has ended its work, at once, without a word and with
exit code 130. That is done by a signal handler, because modules being imported may swallow a KeyboardInterrupt, print
it or make another error of it. A command that is ready to answer Ctrl-C itself says so by `answer_interrupts`.

Nothing is imported here, before the handler is there, that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130  # as in controller.cli.exits, which takes typer to import


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _end_when_interrupted()
    try:
        from controller.cli import main as commands  # noqa: PLC0415

        commands.main(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        _end_when_interrupted()


def complete_for_kubectl() -> None:
    """Print what kubectl asks `kubectl_complete-vmsim` for, and exit."""
    _end_when_interrupted()
    from controller.cli import main as commands  # noqa: PLC0415

    commands.complete_for_kubectl()


def answer_interrupts() -> None:
    """Have Ctrl-C raise KeyboardInterrupt from now on, as is usual."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_when_interrupted() -> None:
    """End at once at Ctrl-C, unless that is ignored: a shell does so for a job in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)
