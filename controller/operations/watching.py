"""Watching the cluster while something is waited for.

Guarantees: what is watched is news from the API server, never a poll; a store is full before anybody looks at it; the
watch ends with its context, whatever ends that.
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
"""Seconds until a first list must have arrived."""


class ChangeSignal:
    """What is watched, and the moment at which any of it changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def touch(self, *_: object) -> None:
        """Note that something changed."""
        self._changed.set()

    async def change(self, within: float) -> None:
        """Wait until something has changed since the last call, or so many seconds have passed."""
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
    """Keep a store, full from the start and with this index, equal to the cluster; `changed` hears of each change.

    Raises NotListedError if it does not fill in 30 s, and at once the NotFoundError or ForbiddenError of a resource
    that is not there or not ours to read: a reflector would try again for ever.
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
            task.result()  # a reflector ends of a defect only, which nobody else would hear of
        if not synced.done():
            raise NotListedError(f"the API server lists no {resource.plural}, see above")
        yield store
    finally:
        task.cancel()
        synced.cancel()
        await asyncio.wait({task, synced})
