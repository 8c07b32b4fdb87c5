"""Observes from outside: a watch that passes each event on with the time of its arrival.

Guarantees: no event after the start of `watching` is missed: a watch that the server ends is resumed, and one that
fails ends the measurement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from random import Random
from typing import Any, TypeAlias

from controller.engine import watch
from controller.engine.changes import Change
from controller.kube.resources import Resource
from hack.bench.errors import BenchError
from hack.bench.objects import NAMESPACE, Brief

Seen: TypeAlias = Callable[[Brief, bool, float], None]
"""Receives each event: the object, whether it was deleted, and the time of arrival (the event loop's, in seconds)."""


@asynccontextmanager
async def watching(
    client: watch.ListWatcher, resource: Resource[Brief], seen: Seen
) -> AsyncIterator[asyncio.Task[None]]:
    """Watch from now on; yields the watching task, which ends only by failing."""
    accepted = asyncio.Event()
    task = asyncio.create_task(_follow(client, resource, seen, accepted))
    try:
        await until(accepted.wait(), task, deadline=30.0, what=lambda: "the watch was not accepted")
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(
    wanted: Coroutine[Any, Any, object], *tasks: asyncio.Task[None], deadline: float, what: Callable[[], str]
) -> None:
    """Wait until `wanted` is done. Raises BenchError after `deadline` seconds, or the error of a task that ends."""
    waiting = asyncio.create_task(wanted)
    try:
        done, _ = await asyncio.wait({waiting, *tasks}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            waiting.result()
            return
        for task in done:
            await task
        raise BenchError(f"timed out after {deadline:.0f} s: {what()}")
    finally:
        waiting.cancel()


async def _follow(client: watch.ListWatcher, resource: Resource[Brief], seen: Seen, accepted: asyncio.Event) -> None:
    """Pass on every change after the first list. Raises BenchError if one may be missed."""
    clock = asyncio.get_running_loop().time
    rng = Random()  # noqa: S311 - spreads retries
    async with aclosing(watch.follow(client, resource, rng=rng, namespace=NAMESPACE)) as stream:
        async for news in stream:
            match news:
                case watch.Batch():
                    at = clock()
                    for change in news.changes:
                        if isinstance(change, Change):
                            seen(change.item, change.deleted, at)
                        elif isinstance(change, watch.Undecodable):
                            raise BenchError(f"watching {resource.plural}: {change.error}")
                case watch.Opened():
                    accepted.set()
                case watch.Failed():
                    raise BenchError(f"watching {resource.plural}: {news.error}")
