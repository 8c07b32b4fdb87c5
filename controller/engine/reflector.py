"""Keeps a store equal to what the API server has: list, watch, and list again when the watch cannot go on.

Guarantees:

- The first list is paged and a quorum read; the store takes it whole or not at all, and a watch resumes only from
  a version that a complete list, a later event or a bookmark gave.
- 410, as an HTTP status or as an ERROR event, leads to a new list, whose differences (deletions too) reach the
  listeners. Every other failure keeps the version and watches on, but the third refusal in a row leads to a new list
  too: the version may be one that this server never had (etcd restored from a backup).
- An optional resource that may not be read is done without: that is told once, and asked again now and then.
- An object that does not decode never keeps the others from arriving. Where its metadata does, it is served with
  defaults for what does not, which is logged once; else it is left out and counted. Its deletion arrives all the same.
- It never gives up and never stops silently: failures back off (0.8 s to 30 s, Retry-After honoured) and are
  logged; the only way out of `run` is cancellation.
- A connection that is silent beyond the client's idle limit counts as broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from enum import StrEnum
from random import Random
from typing import Final, Generic, Protocol, TypeVar

import structlog

from controller.engine.backoff import Backoff
from controller.engine.listing import read_whole
from controller.engine.store import HasMetadata, Store
from controller.kube import codec, errors
from controller.kube.meta import ObjectOnly
from controller.kube.resources import Resource
from controller.kube.verbs import Lister, Watcher

T = TypeVar("T", bound=HasMetadata)
_log = structlog.get_logger(__name__)

WATCH_LIFE: Final = (300.0, 600.0)
"""Seconds a watch lives, drawn at random: bounded, so that tokens rotate and load balancers rebalance."""
MAX_REFUSALS: Final = 3
"""Watches refused in a row before a new list."""
FRESH_LIST: Final = 10.0
"""Seconds after a list during which a 410 backs off instead of listing at once."""
FORBIDDEN_PAUSE: Final = 60.0
"""Seconds until an optional resource that may not be read is asked for again: a server that has just started forbids
what it allows a moment later."""
SHORT_WATCH: Final = 1.0
"""A watch that ends sooner than this many seconds, with no event, backs off instead of spinning."""


class Relist(StrEnum):
    """Why a watch cannot go on from its version."""

    EXPIRED = "expired"
    """410: the server's memory does not reach back so far."""
    REFUSED = "refused"
    """The server would not have it, three times."""


class Metrics(Protocol):
    """What a reflector reports."""

    def listed(self) -> None:
        """Report a complete list."""

    def watching(self) -> None:
        """Report a watch that was accepted."""

    def watched_shortly(self) -> None:
        """Report a watch that ended at once, with no event."""

    def heard(self) -> None:
        """Report events or a bookmark."""

    def must_list_again(self, cause: Relist) -> None:
        """Report that the watch cannot go on."""

    def left_out(self, objects: int) -> None:
        """Report objects whose metadata did not decode."""


class NoMetrics:
    """Reports nothing."""

    def listed(self) -> None:
        """Ignore it."""

    def watching(self) -> None:
        """Ignore it."""

    def watched_shortly(self) -> None:
        """Ignore it."""

    def heard(self) -> None:
        """Ignore it."""

    def must_list_again(self, cause: Relist) -> None:
        """Ignore it."""

    def left_out(self, objects: int) -> None:
        """Ignore it."""


class ListWatcher(Lister, Watcher, Protocol):
    """The two requests of a reflector."""


class Reflector(Generic[T]):
    """Feeds one store from one resource, in one namespace or in all."""

    def __init__(
        self,
        client: ListWatcher,
        resource: Resource[T],
        store: Store[T],
        *,
        rng: Random,
        namespace: str | None = None,
        label_selector: str | None = None,
        optional: bool = False,
        metrics: Metrics | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._optional = optional
        self._metrics = metrics or NoMetrics()
        self._resource = resource
        self._store = store
        self._namespace = namespace
        self._label_selector = label_selector
        self._rng = rng
        self._sleep = sleep
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
        if self._optional:
            await self._wait_until_allowed()
        await self._list_and_watch()

    async def _list_and_watch(self) -> None:
        clock = asyncio.get_running_loop().time
        backoff = Backoff(clock, self._rng)
        listed = False
        listed_at = clock()
        refusals = 0
        while True:
            started = clock()
            try:
                if not listed:
                    await self._list()
                    listed = True
                    listed_at = clock()
                    refusals = 0
                events = await self._watch()
            except errors.ExpiredError as error:
                self.connected = False
                self._log.info("listing again", why=str(error))
                if listed:
                    self._metrics.must_list_again(Relist.EXPIRED)
                # A version grows old while the server is away: that costs one list, now. One that is old as soon as
                # it was listed must not become a hot loop.
                if not listed or clock() - listed_at < FRESH_LIST:
                    await self._sleep(backoff.delay())
                listed = False
            except errors.KubeError as error:
                self.connected = False
                refusals += _refuses(error)
                if listed and refusals >= MAX_REFUSALS:
                    listed = False
                    self._metrics.must_list_again(Relist.REFUSED)
                delay = backoff.delay(at_least=_retry_after(error))
                self._log.warning(
                    "watching again" if listed else "listing again",
                    error=self._explain(error),
                    in_seconds=round(delay, 1),
                )
                await self._sleep(delay)
            else:
                refusals = 0
                if events == 0 and clock() - started < SHORT_WATCH:
                    self._metrics.watched_shortly()
                    await self._sleep(backoff.delay())

    async def _wait_until_allowed(self) -> None:
        """Go on without the resource for as long as it may not be read."""
        while True:
            try:
                await self._client.list_page(
                    self._resource,
                    namespace=self._namespace,
                    label_selector=self._label_selector,
                    limit=1,
                    continue_token="",
                )
            except errors.ForbiddenError as error:
                if not self.answered.is_set():
                    self._log.warning("going on without it", error=str(error))
                self.answered.set()
                await self._sleep(FORBIDDEN_PAUSE)
            except errors.KubeError:
                return  # nothing is known yet, and whoever lists will see
            else:
                return

    def _explain(self, error: errors.KubeError) -> str:
        if isinstance(error, errors.NotFoundError) and self._resource.group:
            return f"{error}; is the resource {self._resource.plural}.{self._resource.group} installed?"
        return str(error)

    async def _list(self) -> None:
        """Read all pages, then hand them to the store at once."""
        whole = await read_whole(
            self._client, self._resource, namespace=self._namespace, label_selector=self._label_selector
        )
        self._store.replace(whole.items, whole.resource_version)
        self._odd.clear()
        for item in whole.items:
            self._tell_if_odd(item)
        self._metrics.left_out(whole.left_out)
        self._log.debug("listed", objects=len(whole.items), resource_version=whole.resource_version)
        self._metrics.listed()
        self.synced.set()
        self.answered.set()

    async def _watch(self) -> int:
        """Watch once; return the number of events when the server ended it in good order."""
        count = 0
        batches = self._client.watch(
            self._resource,
            resource_version=self._store.resource_version,
            life=self._rng.uniform(*WATCH_LIFE),
            namespace=self._namespace,
            label_selector=self._label_selector,
        )
        async with aclosing(batches):
            async for batch in batches:
                self.connected = True
                if not batch:
                    self._metrics.watching()
                    continue
                self._metrics.heard()
                count += len(batch)
                for event in batch:
                    self._apply(event)
        return count

    def _apply(self, event: codec.WatchEnvelope) -> None:
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                deleted = event.type == "DELETED"
                try:
                    item = codec.decode_object(event.object, self._resource.type)
                except errors.MalformedReplyError as error:
                    self._log.error("an object is left out", error=str(error))
                    self._metrics.left_out(1)
                    if deleted:
                        self._store.remove(*codec.identity(event.object))
                else:
                    if deleted:
                        self._odd.pop(item.metadata.uid, None)
                    else:
                        self._tell_if_odd(item)
                    self._store.apply(item, deleted=deleted)
            case "BOOKMARK":
                bookmark = codec.decode(event.object, ObjectOnly)
                self._store.bookmark(bookmark.metadata.resource_version)
            case "ERROR":
                status = codec.decode_status(bytes(event.object))
                raise errors.from_status(status.code, status.reason, status.message)
            case _:
                raise errors.MalformedReplyError(f"a watch event of unknown type {event.type!r}")

    def _tell_if_odd(self, item: T) -> None:
        """Say which fields of an object did not decode, once for as long as they are the same."""
        unreadable: tuple[str, ...] = getattr(item, "unreadable", ())
        if not unreadable:
            if self._odd:
                self._odd.pop(item.metadata.uid, None)
            return
        if self._odd.get(item.metadata.uid) != unreadable:
            self._odd[item.metadata.uid] = unreadable
            self._log.warning("an object is odd", object=item.metadata.key, unreadable=list(unreadable))


def _refuses(error: errors.KubeError) -> bool:
    """Whether the server answered and will not have this watch; a lost connection or 429 says nothing about it."""
    return not isinstance(error, errors.TransportError | errors.TooManyRequestsError)


def _retry_after(error: errors.KubeError) -> float | None:
    return error.retry_after if isinstance(error, errors.StatusError) else None
