"""The watches of an API server.

Guarantees: a watch yields every change after its version, in order, or an error if that version has expired. An object
that leaves its selection is deleted, one that enters it is added. Bookmarks come once a minute and, in a watch that has
lasted a minute, shortly before its end. A watch ends after its timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from controller.kube import codec
from tests.model.rules import Document, Matches, key_of

Log: TypeAlias = list[tuple[str, Document, bool]]
"""Every change: the resource's plural, the new or last state of the object, whether it was deleted."""
BOOKMARK_EVERY: Final = 60.0
LAST_BOOKMARK: Final = 2.0
"""Seconds from the last bookmark of a watch to its end."""
_TOO_OLD: Final = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def envelope(kind: str, document: Document) -> codec.WatchEnvelope:
    """Return one line of a watch."""
    return codec.WatchEnvelope(type=kind, object=msgspec.Raw(codec.encode(document)))


@dataclass(slots=True, eq=False)
class Watch:
    """One open watch, and its pending events."""

    plural: str
    shows: Matches
    events: asyncio.Queue[list[codec.WatchEnvelope]] = field(default_factory=asyncio.Queue)
    waits: bool = False
    """Whether its reader has taken every event and waits for more."""

    def kind_of(self, before: Document | None, document: Document, *, deleted: bool) -> str | None:
        """Return the type of a change for this watch; None if the watch does not show it."""
        was = before is not None and self.shows(before)
        if deleted or not self.shows(document):
            return "DELETED" if was or (deleted and before is None) else None
        return "MODIFIED" if was else "ADDED"


@dataclass(slots=True, eq=False)
class Watches:
    """All open watches."""

    open: list[Watch] = field(default_factory=list)
    lag: dict[str, float] = field(default_factory=dict)
    """By resource: seconds until its watches yield a change."""
    held: list[tuple[Watch, codec.WatchEnvelope]] | None = None
    """Events that are sent only when the test delivers them; None if events are sent at once."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, plural: str, before: Document | None, document: Document, *, deleted: bool) -> None:
        """Pass a change to every watch."""
        for watch in self.open:
            if watch.plural == plural and (kind := watch.kind_of(before, document, deleted=deleted)) is not None:
                self._send(watch, envelope(kind, document))

    def _send(self, watch: Watch, event: codec.WatchEnvelope) -> None:
        if self.held is not None:
            self.held.append((watch, event))
        elif lag := self.lag.get(watch.plural):
            asyncio.get_running_loop().call_later(lag, watch.events.put_nowait, [event])
        else:
            watch.events.put_nowait([event])

    def expire(self) -> None:
        """Send every watch an ERROR event that its version has expired."""
        for watch in self.open:
            self._send(watch, envelope("ERROR", _TOO_OLD))

    async def deliver(self, readers: int) -> None:
        """Send the pending events; wait until so many watches are open and their readers have read all."""
        pending, self.held = self.held or [], []
        batches: dict[Watch, list[codec.WatchEnvelope]] = {}
        for watch, event in pending:
            batches.setdefault(watch, []).append(event)
        for watch, events in batches.items():
            watch.waits = False
            watch.events.put_nowait(events)
        while len(self.open) < readers or not all(watch.waits for watch in self.open):
            self._moved.clear()
            await self._moved.wait()

    async def follow(self, watch: Watch, missed: Iterable[codec.WatchEnvelope], *, life: float, version: Any) -> Events:
        """Yield an empty chunk, then the missed changes, then new ones, until the timeout."""
        clock = asyncio.get_running_loop().time
        ends = clock() + life
        bookmark_at = clock() + BOOKMARK_EVERY
        if events := list(missed):
            watch.events.put_nowait(events)
        self.open.append(watch)
        try:
            yield []
            while clock() < ends:
                try:
                    async with asyncio.timeout_at(min(bookmark_at, ends)):
                        self._rest(watch)
                        events = await watch.events.get()
                        watch.waits = False
                except TimeoutError:
                    if clock() < ends:
                        bookmark_at = _next_bookmark(clock(), ends)
                        yield [_bookmark(version())]
                    continue
                yield events
        finally:
            self.open.remove(watch)
            self._moved.set()

    def _rest(self, watch: Watch) -> None:
        watch.waits = watch.events.empty()
        self._moved.set()


Events: TypeAlias = AsyncGenerator[list[codec.WatchEnvelope], None]


async def expired() -> Events:
    """Yield the events of a watch whose version has expired."""
    yield []
    yield [envelope("ERROR", _TOO_OLD)]


def missed(watch: Watch, log: Log, since: int) -> Iterable[codec.WatchEnvelope]:
    """Yield the changes that a watch from this version has missed."""
    newest: dict[str, Document | None] = {}
    for plural, document, deleted in log:
        if plural == watch.plural:
            key = key_of(document)
            before = newest.get(key)
            newest[key] = None if deleted else document
            if int(document["metadata"]["resourceVersion"]) > since:
                kind = watch.kind_of(before, document, deleted=deleted)
                if kind is not None:
                    yield envelope(kind, document)


def _bookmark(version: str) -> codec.WatchEnvelope:
    return envelope("BOOKMARK", {"metadata": {"resourceVersion": version}})


def _next_bookmark(now: float, ends: float) -> float:
    """Return the time of the next bookmark: in a minute, or shortly before the end if that is sooner."""
    last = ends - LAST_BOOKMARK
    return last if now < last < now + BOOKMARK_EVERY else now + BOOKMARK_EVERY
