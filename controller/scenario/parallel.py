"""Many requests, a bounded number at a time, each tried again while that makes sense.

Guarantees: the first failure ends the others and is raised as itself; a request whose outcome is unknown, or that was
told to come back later, is tried again with a backoff; nothing here has a deadline of its own: the caller's ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final, TypeVar

from controller.engine.backoff import Backoff
from controller.kube.errors import KubeError, StatusError, TooManyRequestsError, UnauthorizedError

T = TypeVar("T")
R = TypeVar("R")

AT_A_TIME: Final = 16
"""Requests under way."""


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_a_time: int = AT_A_TIME) -> None:
    """Do the work for every item."""
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


async def patiently(request: Callable[[], Awaitable[R]], *, rng: Random) -> R:
    """Send a request again and again until the API server has an answer that will not change by waiting."""
    backoff = Backoff(asyncio.get_running_loop().time, rng)
    while True:
        try:
            return await request()
        except KubeError as error:
            if not passing(error):
                raise
            await asyncio.sleep(backoff.delay(at_least=retry_after(error)))


def passing(error: KubeError) -> bool:
    """Whether the same request may well succeed later: an outage, too much load, a token that is being rotated."""
    return error.outcome_unknown or isinstance(error, TooManyRequestsError | UnauthorizedError)


def retry_after(error: KubeError) -> float | None:
    """Return the seconds that the API server asked us to stay away, if it did."""
    return error.retry_after if isinstance(error, StatusError) else None
