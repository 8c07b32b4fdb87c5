"""Many requests with bounded concurrency, and retries of the errors that pass.

Guarantees: the first failure cancels the other workers and is raised unchanged; a request whose outcome is unknown, or
that was throttled, is retried with a backoff, and the server's last message is readable meanwhile; nothing here has a
deadline of its own: the caller's timeout ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from random import Random
from typing import Any, Final, TypeVar

from controller.engine.backoff import Backoff
from controller.kube.errors import KubeError, StatusError, TooManyRequestsError, UnauthorizedError
from controller.operations.text import one_line

T = TypeVar("T")
R = TypeVar("R")

AT_A_TIME: Final = 16
"""Requests in flight at the same time."""
TICK: Final = 1.0
"""Seconds between two progress reports."""
_SLOW: Final = 5.0
"""Seconds without an answer after which a request is reported as waiting."""
_NO_ANSWER: Final = "no answer yet"


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_a_time: int = AT_A_TIME) -> None:
    """Do the work for every item, `at_a_time` items at once. Raises the first error of the work."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(at_a_time)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def reporting(work: Coroutine[Any, Any, R], report: Callable[[], None]) -> R:
    """Do the work and call `report` every second until it is done; return its result."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=TICK))[0]:
            report()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()


class Requests:
    """Requests that are being retried, and why; `changed` is called after each attempt that failed."""

    def __init__(self, rng: Random, changed: Callable[[], None]) -> None:
        self._rng = rng
        self._changed = changed
        self._clock = asyncio.get_running_loop().time
        self._since: dict[str, float] = {}
        self._words: dict[str, str] = {}

    @property
    def waiting(self) -> dict[str, str]:
        """Each request that was retried, or has had no answer for `_SLOW` seconds, with the server's last message."""
        now = self._clock()
        return {
            what: self._words.get(what, _NO_ANSWER)
            for what, since in self._since.items()
            if what in self._words or now - since >= _SLOW
        }

    async def retrying(self, what: str, request: Callable[[], Awaitable[R]]) -> R:
        """Send a request and retry it until it succeeds or fails with an error that a retry does not fix.

        `what` names the request in `waiting` meanwhile, and stays there if the caller's deadline ends the retries.
        """
        self._since[what] = self._clock()
        backoff = Backoff(self._clock, self._rng)
        while True:
            try:
                answer = await request()
            except KubeError as error:
                if not passing(error):
                    self._settle(what)
                    raise
                self._words[what] = one_line(str(error))
                self._changed()
                await asyncio.sleep(backoff.delay(at_least=retry_after(error)))
            else:
                self._settle(what)
                return answer

    def _settle(self, what: str) -> None:
        self._since.pop(what, None)
        self._words.pop(what, None)


def passing(error: KubeError) -> bool:
    """Whether the same request may succeed later: after an outage, throttling, or the rotation of a token."""
    return error.outcome_unknown or isinstance(error, TooManyRequestsError | UnauthorizedError)


def retry_after(error: KubeError) -> float | None:
    """Return the Retry-After of the API server in seconds, if it sent one."""
    return error.retry_after if isinstance(error, StatusError) else None
