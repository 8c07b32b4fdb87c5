"""Looks on from outside: a watch whose every event is handed over with the time at which it arrived.

Guarantees: nothing that happens after `watching` was entered is missed: a watch that the server ends goes on where it
was, and one that breaks ends the measurement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias

from controller.kube import codec
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.kube.resources import Resource
from hack.bench.errors import BenchError
from hack.bench.objects import NAMESPACE, Brief

_LIFE: Final = 3600.0

Seen: TypeAlias = Callable[[Brief, bool, float], None]
"""Told of each event: the object, whether it was deleted, and when (the event loop's seconds)."""


@asynccontextmanager
async def watching(client: Client, resource: Resource[Brief], seen: Seen) -> AsyncIterator[asyncio.Task[None]]:
    """Watch from now on; yields the task that does, which ends only when it fails."""
    page = await client.list_page(resource, namespace=NAMESPACE, limit=1)
    accepted = asyncio.Event()
    task = asyncio.create_task(_follow(client, resource, page.resource_version, seen, accepted))
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


async def _follow(client: Client, resource: Resource[Brief], version: str, seen: Seen, accepted: asyncio.Event) -> None:
    """Watch for good: a watch that the server ends goes on from the last version it told."""
    clock = asyncio.get_running_loop().time
    while True:
        try:
            batches = client.watch(resource, resource_version=version, life=_LIFE, namespace=NAMESPACE)
            async with aclosing(batches):
                async for batch in batches:
                    accepted.set()
                    at = clock()
                    for event in batch:
                        item = codec.decode(event.object, Brief)
                        version = item.metadata.resource_version or version
                        if event.type in ("ADDED", "MODIFIED", "DELETED"):
                            seen(item, event.type == "DELETED", at)
                        elif event.type == "ERROR":
                            raise BenchError(f"watching {resource.plural}: {codec.decode_status(event.object).message}")
        except KubeError as error:
            raise BenchError(f"watching {resource.plural}: {error}") from error
