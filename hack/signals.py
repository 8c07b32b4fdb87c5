"""How scripts are ended: a polite kill and a hang-up are interrupts, so that everything they started is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from controller.signals import interrupt, leave_terminal, requests_to_stop


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
    """Let no further request to stop leave processes behind."""
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
