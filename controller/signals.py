"""Handles the signals that ask a process to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP, which are equivalent.

Guarantees: SIGHUP stays ignored where the caller ignores it (`nohup`); writing to a terminal that has been closed does
not fail. A command that starts processes handles all three as KeyboardInterrupt, so that it stops these processes.
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

_HANG_UP: Final = getattr(signal, "SIGHUP", None)  # not available on Windows


def requests_to_stop() -> tuple[signal.Signals, ...]:
    """Return the signals, besides SIGINT, that ask this process to stop."""
    ignored = _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN
    return (signal.SIGTERM,) if ignored or _HANG_UP is None else (signal.SIGTERM, _HANG_UP)


def listen(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], *more: signal.Signals) -> None:
    """Call `stop` in the loop at every request to stop and at `more` signals; does nothing on Windows.

    SIGHUP only counts if it is the first request: it arrives twice, from the kernel and from the shell, and the second
    one must not count as a second request.
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
    """Handle a request to stop as SIGINT."""
    if number == _HANG_UP:
        leave_terminal()
    signal.raise_signal(signal.SIGINT)


def leave_terminal() -> None:
    """Redirect standard output and error to the null device where their terminal is closed: writes would fail."""
    if sys.platform == "win32":
        return
    import termios  # noqa: PLC0415 - not available on Windows

    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)


def end_as_interrupted() -> None:
    """Make every request to stop raise KeyboardInterrupt, also in a background job, which ignores SIGINT by default."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in requests_to_stop():
        signal.signal(number, interrupt)


@contextmanager
def handled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the running loop at every request to stop within the context.

    Unlike the loop's own handlers, these restore the previous handlers on exit, so that there is no moment at which a
    signal ends the process at once.
    """
    loop = asyncio.get_running_loop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            leave_terminal()
        loop.call_soon_threadsafe(stop)

    with _set(ask, (signal.SIGINT, *requests_to_stop())):
        yield


@contextmanager
def interrupts(pressed: Callable[[], None]) -> Iterator[None]:
    """Call `pressed` in the running loop at every Ctrl-C within the context; nothing where SIGINT is ignored."""
    loop = asyncio.get_running_loop()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return

    def press(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(pressed)

    with _set(press, (signal.SIGINT,)):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore requests to stop within the context, so that a cleanup completes; a no-op outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _set(signal.SIG_IGN, (signal.SIGINT, *requests_to_stop())):
        yield


@contextmanager
def _set(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, numbers: tuple[signal.Signals, ...]
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
