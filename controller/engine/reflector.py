"""Keeps a store equal to what the API server has: the stream of `controller.engine.watch`, folded into a store.

Guarantees:

- The store takes a list whole or not at all, and keeps what it has until the next list is whole; listeners hear of
  every difference, deletions too.
- An optional resource that may not be read is done without: that is logged once, and asked again now and then.
- An object of which only the metadata decodes is served with defaults for what does not, which is logged once; one of
  which not even that decodes is left out and counted. Its deletion arrives all the same.
- It never gives up and never stops silently: failures back off and are logged; the only way out of `run` is
  cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from random import Random
from typing import Generic, TypeVar

import structlog

from controller.engine import watch
from controller.engine.changes import Change, HasMetadata
from controller.engine.store import Store
from controller.kube import errors
from controller.kube.resources import Resource

T = TypeVar("T", bound=HasMetadata)
_log = structlog.get_logger(__name__)


class Metrics:
    """What a reflector reports; here to nobody."""

    def listed(self) -> None:
        """Report a complete list."""

    def watching(self) -> None:
        """Report a watch that was accepted."""

    def watched_shortly(self) -> None:
        """Report a watch that ended at once, with no event."""

    def heard(self) -> None:
        """Report events or a bookmark."""

    def must_list_again(self, cause: watch.Relist) -> None:
        """Report that the watch cannot go on."""

    def left_out(self, objects: int) -> None:
        """Report objects whose metadata did not decode."""


class Reflector(Generic[T]):
    """Feeds one store from one resource, in one namespace or in all."""

    def __init__(
        self,
        client: watch.ListWatcher,
        resource: Resource[T],
        store: Store[T],
        *,
        rng: Random,
        namespace: str | None = None,
        label_selector: str | None = None,
        optional: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._follow = partial(
            watch.follow,
            client,
            resource,
            rng=rng,
            namespace=namespace,
            label_selector=label_selector,
            optional=optional,
        )
        self._resource = resource
        self._store = store
        self._metrics = metrics or Metrics()
        # What did not decode of the objects that are odd, by UID; begun anew with each list.
        self._odd: dict[str, tuple[str, ...]] = {}
        self._log = _log.bind(resource=resource.plural, namespace=namespace or "*")
        self.synced = asyncio.Event()
        """Set once the store holds a first complete list; never cleared."""
        self.answered = asyncio.Event()
        """Set once that is so, or the first list of an optional resource was forbidden."""
        self.connected = False
        """Whether the last watch was accepted and has not failed: news arrives."""

    async def run(self) -> None:
        """Keep the store up to date until cancelled."""
        async with aclosing(self._follow()) as stream:
            async for news in stream:
                match news:
                    case watch.Batch():
                        self._metrics.heard()
                        self._apply(news.changes)
                    case watch.Listed():
                        self._replace(news)
                    case watch.Opened():
                        self.connected = True
                        self._metrics.watching()
                    case watch.Ended(short=True):
                        self._metrics.watched_shortly()
                    case watch.Failed():
                        self.connected = False
                        self._tell(news)
                    case watch.Forbidden():
                        if not self.answered.is_set():
                            self._log.warning("going on without it", error=str(news.error))
                        self.answered.set()

    def _apply(self, changes: Sequence[watch.Told[T]]) -> None:
        for change in changes:
            if isinstance(change, Change):
                if change.deleted:
                    self._odd.pop(change.item.metadata.uid, None)
                elif self._odd or getattr(change.item, "unreadable", None):
                    self._tell_if_odd(change.item)
                self._store.apply(change)
            elif isinstance(change, watch.Current):
                self._store.bookmark(change.resource_version)
            else:
                self._log.error("an object is left out", error=str(change.error))
                self._metrics.left_out(1)
                if change.deleted:
                    self._store.remove(*change.identity)

    def _replace(self, listed: watch.Listed[T]) -> None:
        self._store.replace(listed.items, listed.resource_version)
        self._odd.clear()
        for item in listed.items:
            self._tell_if_odd(item)
        self._metrics.left_out(listed.left_out)
        self._log.debug("listed", objects=len(listed.items), resource_version=listed.resource_version)
        self._metrics.listed()
        self.synced.set()
        self.answered.set()

    def _tell(self, failed: watch.Failed) -> None:
        """Log a failure; a version that has expired is none."""
        if failed.relist is not None:
            self._metrics.must_list_again(failed.relist)
        if isinstance(failed.error, errors.ExpiredError):
            self._log.info("listing again", why=str(failed.error))
            return
        self._log.warning(
            "watching again" if failed.resumes else "listing again",
            error=self._explain(failed.error),
            in_seconds=round(failed.delay, 1),
        )

    def _explain(self, error: errors.KubeError) -> str:
        if isinstance(error, errors.NotFoundError) and self._resource.group:
            return f"{error}; is the resource {self._resource.plural}.{self._resource.group} installed?"
        return str(error)

    def _tell_if_odd(self, item: T) -> None:
        """Say which fields of an object did not decode, once for as long as they are the same."""
        unreadable: tuple[str, ...] = getattr(item, "unreadable", ())
        if not unreadable:
            self._odd.pop(item.metadata.uid, None)
            return
        if self._odd.get(item.metadata.uid) != unreadable:
            self._odd[item.metadata.uid] = unreadable
            self._log.warning("an object is odd", object=item.metadata.key, unreadable=list(unreadable))
