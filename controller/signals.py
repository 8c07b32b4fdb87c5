"""How a process is asked to stop: SIGTERM, Ctrl-C, and a hang-up, which all mean the same.

Guarantees: whoever asked for hang-ups to be ignored (`nohup`) is heeded; what is printed after the terminal has gone
fails nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

_HANG_UP: Final = getattr(signal, "SIGHUP", None)  # there is none on Windows


def requests_to_stop() -> tuple[signal.Signals, ...]:
    """Return the signals, beside Ctrl-C's, that ask this process to stop."""
    ignored = _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN
    return (signal.SIGTERM,) if ignored or _HANG_UP is None else (signal.SIGTERM, _HANG_UP)


def listen(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], *more: signal.Signals) -> None:
    """Call `stop` in the loop at every request to stop, and at `more` signals; not on a platform whose loop cannot.

    A hang-up only counts if nothing was asked before: it comes twice, from the kernel and from the shell, and must not
    be taken for impatience.
    """
    asked = False

    def ask(number: signal.Signals) -> None:
        nonlocal asked
        if number == _HANG_UP:
            leave_terminal()
            if asked:
                return
        asked = True
        stop()

    for number in (*requests_to_stop(), *more):
        try:
            loop.add_signal_handler(number, ask, number)
        except NotImplementedError:
            return


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Handle a request to stop as Ctrl-C is handled."""
    if number == _HANG_UP:
        leave_terminal()
    signal.raise_signal(signal.SIGINT)


def leave_terminal() -> None:
    """Have output go nowhere where it went to a terminal that is gone: writing there would fail."""
    if sys.platform == "win32":
        return
    import termios  # noqa: PLC0415 - there is none for Windows

    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
