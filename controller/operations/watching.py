"""Stores that follow a resource by list and watch for the duration of one operation, and the signal of their changes.

Guarantees: changes come from a watch, never from polling; a store is synced before the caller gets it; the watch ends
with its context, on success, error and cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, TypeVar

import structlog

from controller.engine.changes import HasMetadata
from controller.engine.reflector import Reflector
from controller.engine.store import Store
from controller.kube.errors import ForbiddenError, KubeError, NotFoundError
from controller.kube.resources import Resource
from controller.operations.api import Api
from controller.operations.errors import NotListedError

T = TypeVar("T", bound=HasMetadata)
_log = structlog.get_logger(__name__)

_SYNC_DEADLINE: Final = 30.0
"""Seconds within which the first list must arrive."""


class ChangeSignal:
    """Wakes one waiter when any of its stores changes; a change that comes before the wait is not lost."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def touch(self, *_: object) -> None:
        """Signal a change; takes and ignores the arguments of a store's listener."""
        self._changed.set()

    async def change(self, within: float) -> None:
        """Wait for a change since the last call, at most `within` seconds."""
        try:
            async with asyncio.timeout(max(0.0, within)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


@asynccontextmanager
async def watching(
    client: Api,
    resource: Resource[T],
    changed: Callable[[T | None, T | None], None],
    *,
    namespace: str | None = None,
    label_selector: str | None = None,
    index: Callable[[T], str | None] | None = None,
) -> AsyncIterator[Store[T]]:
    """Yield a synced store of the resource, with this index; `changed` is called with the old and new object.

    Raises NotListedError if the first list takes longer than 30 s. A resource that is not served or may not be read
    raises NotFoundError or ForbiddenError at once: a reflector would retry it for ever.
    """
    try:
        await client.list_page(resource, namespace=namespace, label_selector=label_selector, limit=1)
    except (NotFoundError, ForbiddenError):
        raise
    except KubeError as error:
        _log.debug("not listed at the first try", resource=resource.plural, error=str(error))
    store: Store[T] = Store(index)
    store.listen(changed, name="ChangeSignal")
    reflector = Reflector(
        client,
        resource,
        store,
        rng=Random(),  # noqa: S311 - spreads retries
        namespace=namespace,
        label_selector=label_selector,
    )
    task = asyncio.create_task(reflector.run())
    synced = asyncio.create_task(reflector.synced.wait())
    try:
        await asyncio.wait({task, synced}, timeout=_SYNC_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # a reflector ends only by a defect, which is raised here and nowhere else
        if not synced.done():
            raise NotListedError(f"the API server lists no {resource.plural}, see above")
        yield store
    finally:
        task.cancel()
        synced.cancel()
        await asyncio.wait({task, synced})
