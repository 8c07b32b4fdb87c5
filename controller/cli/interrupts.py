"""Ctrl-C as an event that a command waits for, instead of its end.

Guarantees: only Ctrl-C counts; SIGTERM and SIGHUP end the command as they do elsewhere. A press that comes before
somebody waits for it is not lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from controller import signals

T = TypeVar("T")


class Presses:
    """Counts Ctrl-C."""

    def __init__(self) -> None:
        self._left = asyncio.Semaphore(0)

    def press(self) -> None:
        """Count one."""
        self._left.release()

    async def during(self, work: asyncio.Task[T], *, within: float | None = None) -> bool:
        """Wait for a task to end; return whether Ctrl-C came first. With `within`, wait so many seconds at most."""
        press = asyncio.create_task(self._left.acquire())
        try:
            await asyncio.wait({work, press}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pressed = press.done()
            press.cancel()
        return pressed and not work.done()


@contextmanager
def counted() -> Iterator[Presses]:
    """Yield the presses of Ctrl-C within the context."""
    presses = Presses()
    with signals.interrupts(presses.press):
        yield presses
