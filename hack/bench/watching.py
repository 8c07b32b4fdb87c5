"""Looks on from outside: a watch whose every event is handed over with the time at which it arrived.

Guarantees: nothing that happens after `watching` was entered is missed: a watch that the server ends goes on where it
was, and one that breaks ends the measurement.
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
"""Told of each event: the object, whether it was deleted, and when (the event loop's seconds)."""


@asynccontextmanager
async def watching(
    client: watch.ListWatcher, resource: Resource[Brief], seen: Seen
) -> AsyncIterator[asyncio.Task[None]]:
    """Watch from now on; yields the task that does, which ends only when it fails."""
    accepted = asyncio.Event()
    task = asyncio.create_task(_follow(client, resource, seen, accepted))
    try:
        await until(accepted.wait(), task, deadline=30.0, what=lambda: "the watch was accepted")
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(
    wanted: Coroutine[Any, Any, object], *tasks: asyncio.Task[None], deadline: float, what: Callable[[], str]
) -> None:
    """Wait until `wanted` is done. Raises BenchError after `deadline` seconds, telling what, or if a task ends."""
    waiting = asyncio.create_task(wanted)
    try:
        done, _ = await asyncio.wait({waiting, *tasks}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            waiting.result()
            return
        for task in done:
            await task
        raise BenchError(f"not within {deadline:.0f} s: {what()}")
    finally:
        waiting.cancel()


async def _follow(client: watch.ListWatcher, resource: Resource[Brief], seen: Seen, accepted: asyncio.Event) -> None:
    """Hand over every change after the first list, for good. Raises BenchError if one is missed."""
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
