"""The reflector: applies the stream of `controller.engine.watch` to a store, which so mirrors the API server.

Guarantees:

- The store takes a list only when it is complete, and retains its objects until then. Its listeners get every
  difference, deletions included.
- Until an optional resource may be listed, the store stays empty. This is logged once, and the list is retried each
  minute.
- An object of which only the metadata decodes is stored with defaults for its malformed fields, which are logged once.
  An object whose metadata does not decode is left out and counted; its deletion is applied all the same.
- `run` ends only by cancellation. Failures are logged, and back off.
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
    """The metrics that a reflector reports; these methods do nothing."""

    def listed(self) -> None:
        """Report a complete list."""

    def watching(self) -> None:
        """Report a watch that was accepted."""

    def watched_shortly(self) -> None:
        """Report a watch that ended at once and without an event."""

    def heard(self) -> None:
        """Report that events or a bookmark arrived."""

    def must_list_again(self, cause: watch.Relist) -> None:
        """Report that the watch cannot resume, and why."""

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
        # The malformed fields of objects, by UID; cleared at each list.
        self._malformed: dict[str, tuple[str, ...]] = {}
        self._log = _log.bind(resource=resource.plural, namespace=namespace or "*")
        self.synced = asyncio.Event()
        """Set once the store holds a first complete list; never cleared."""
        self.answered = asyncio.Event()
        """Set once `synced` is set, or the first list of an optional resource was forbidden."""
        self.connected = False
        """Whether the last watch was accepted and has not failed, so that changes arrive."""

    async def run(self) -> None:
        """Keep the store up to date until cancelled."""
        async with aclosing(self._follow()) as stream:
            async for item in stream:
                match item:
                    case watch.Batch():
                        self._metrics.heard()
                        self._apply(item.changes)
                    case watch.Listed():
                        self._replace(item)
                    case watch.Opened():
                        self.connected = True
                        self._metrics.watching()
                    case watch.Ended(short=True):
                        self._metrics.watched_shortly()
                    case watch.Failed():
                        self.connected = False
                        self._log_failure(item)
                    case watch.Forbidden():
                        if not self.answered.is_set():
                            self._log.warning("going on without it", error=str(item.error))
                        self.answered.set()

    def _apply(self, changes: Sequence[watch.Event[T]]) -> None:
        for change in changes:
            if isinstance(change, Change):
                if change.deleted:
                    self._malformed.pop(change.item.metadata.uid, None)
                elif self._malformed or getattr(change.item, "unreadable", None):
                    self._log_if_malformed(change.item)
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
        self._malformed.clear()
        for item in listed.items:
            self._log_if_malformed(item)
        self._metrics.left_out(listed.left_out)
        self._log.debug("listed", objects=len(listed.items), resource_version=listed.resource_version)
        self._metrics.listed()
        self.synced.set()
        self.answered.set()

    def _log_failure(self, failed: watch.Failed) -> None:
        """Log a failure; an expired version is only an info line."""
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

    def _log_if_malformed(self, item: T) -> None:
        """Log the malformed fields of an object, again only when they change."""
        unreadable: tuple[str, ...] = getattr(item, "unreadable", ())
        if not unreadable:
            self._malformed.pop(item.metadata.uid, None)
            return
        if self._malformed.get(item.metadata.uid) != unreadable:
            self._malformed[item.metadata.uid] = unreadable
            self._log.warning("an object has malformed fields", object=item.metadata.key, unreadable=list(unreadable))
