"""How a process is asked to stop: SIGTERM, Ctrl-C, and a hang-up, which all mean the same.

Guarantees: whoever asked for hang-ups to be ignored (`nohup`) is heeded; what is printed after the terminal has gone
fails nothing. A command that starts processes handles the three as interrupts, so that it stops what it has started.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def end_as_interrupted() -> None:
    """Have every request to stop raise KeyboardInterrupt, also in a background job, which ignores SIGINT otherwise."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in requests_to_stop():
        signal.signal(number, interrupt)


@contextmanager
def handled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the running loop, however often this process is asked to stop, while the context lasts.

    Unlike the loop's own handlers, these leave those of before in their place: there is no moment in which a signal
    ends the process at once.
    """
    loop = asyncio.get_running_loop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            leave_terminal()
        loop.call_soon_threadsafe(stop)

    with _set(ask):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no further request to stop leave processes behind. Signals come to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _set(signal.SIG_IGN):
        yield


@contextmanager
def _set(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, *requests_to_stop())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
