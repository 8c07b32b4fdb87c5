"""A recorder of Kubernetes Events (events.k8s.io/v1), which writes them in the background.

Guarantees:

- `record` returns at once and never fails, so an event never delays a reconcile.
- An event that repeats within six minutes is counted in one series, as in client-go's tools/events.
- The recorder makes at most 50 writes a second after a burst of 200.
- Memory is bounded. Events beyond the bound, and events that the API server refuses, are dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, Protocol
from uuid import uuid4

import structlog

from controller.engine.ratelimit import Bucket
from controller.kube import errors, managers, naming
from controller.kube.event import Event
from controller.kube.meta import ObjectMeta
from controller.kube.resources import EVENTS
from controller.kube.times import micro_timestamp
from controller.kube.verbs import CREATE_DEADLINE, Creator, Patcher

_log = structlog.get_logger(__name__)

SERIES_MEMORY: Final = timedelta(minutes=6)
"""An event that repeats after a longer pause than this is a new event."""
MAX_SERIES: Final = 4096
MAX_PENDING: Final = 1000
WRITES_PER_SECOND: Final = 50.0
WRITE_BURST: Final = 200
_NOTE_LIMIT: Final = 1024
"""Longest note in bytes that the API accepts."""


class EventWriter(Creator, Patcher, Protocol):
    """The two verbs of a recorder."""


@dataclass(slots=True)
class _Series:
    """One event and its repetitions."""

    event: Event
    regarding: ObjectMeta
    name: str
    last: datetime
    seen: int = 1
    written: int = 0


_Key = tuple[str, Event]


class Recorder:
    """Records events of objects of one kind; `run` writes them."""

    def __init__(
        self,
        writer: EventWriter,
        *,
        api_version: str,
        kind: str,
        instance: str,
        clock: Callable[[], float],
        max_series: int = MAX_SERIES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._writer = writer
        self._api_version = api_version
        self._kind = kind
        self._instance = instance[:128]
        self._max_series = max_series
        self._now = now
        self._sleep = sleep
        self._bucket = Bucket(clock, rate=WRITES_PER_SECOND, burst=WRITE_BURST)
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        # Keys of the series with unwritten repetitions, each once.
        self._pending: deque[_Key] = deque()
        self._wake = asyncio.Event()
        self._serial = count()
        self.dropped = 0
        """Events that were not, or will not be, written."""

    def record(self, regarding: ObjectMeta, event: Event) -> None:
        """Accept an event that regards an object. `run` writes it, or it is dropped and counted."""
        key = (regarding.uid, event)
        now = self._now()
        series = self._series.get(key)
        if series is not None and now - series.last <= SERIES_MEMORY:
            waiting = series.seen > series.written
            series.seen += 1
            series.last = now
            self._series.move_to_end(key)
        else:
            waiting = False
            name = self._name(regarding.name, now)
            # Keep only the identity of the object, or the whole object would stay in memory as long as the series.
            subject = ObjectMeta(name=regarding.name, namespace=regarding.namespace, uid=regarding.uid)
            self._series[key] = series = _Series(event, subject, name, now)
            self._evict(now)
        if waiting:
            return
        if len(self._pending) >= MAX_PENDING:
            self.dropped += 1
            del self._series[key]
            return
        self._pending.append(key)
        self._wake.set()

    def _name(self, regarding: str, now: datetime) -> str:
        """Return a unique name for an event: client-go's form, or a UUID where that form is too long for a name."""
        stamp = int(now.timestamp() * 1_000_000)
        name = f"{regarding}.{stamp:x}{next(self._serial) % 4096:03x}"
        return name if len(name) <= naming.LONGEST_SUBDOMAIN else str(uuid4())

    def _evict(self, now: datetime) -> None:
        """Drop the series that have expired and are written, and the oldest ones beyond `max_series`."""
        while self._series:
            key, oldest = next(iter(self._series.items()))
            expired = now - oldest.last > SERIES_MEMORY and oldest.seen == oldest.written
            if not expired and len(self._series) <= self._max_series:
                return
            del self._series[key]

    async def run(self) -> None:
        """Write the recorded events until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                key = self._pending.popleft()
                series = self._series.get(key)
                if series is None:
                    self.dropped += 1
                    continue
                await self._sleep(self._bucket.reserve())
                await self._write(key, series)

    async def _write(self, key: _Key, series: _Series) -> None:
        first = series.written == 0
        seen = series.seen
        series.written = seen
        try:
            if first:
                body = self._body(series, seen)
                await self._writer.create(
                    EVENTS, body, namespace=series.regarding.namespace, server_deadline=CREATE_DEADLINE
                )
            else:
                patch = {"series": _observed(series, seen)}
                await self._writer.merge_patch(EVENTS, series.name, patch, namespace=series.regarding.namespace)
        except errors.KubeError as error:
            # The next repetition starts a new series: the server may have expired this one.
            self.dropped += 1
            self._series.pop(key, None)
            _log.debug("event dropped", vm=series.regarding.key, reason=series.event.reason, error=str(error))
            return
        if series.seen > seen:
            self._pending.append(key)

    def _body(self, series: _Series, seen: int) -> dict[str, Any]:
        event, regarding = series.event, series.regarding
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": regarding.namespace},
            "eventTime": micro_timestamp(series.last),
            "reportingController": managers.CONTROLLER,
            "reportingInstance": self._instance,
            "type": event.type,
            "reason": event.reason,
            "action": event.action,
            "note": event.note.encode()[:_NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": self._api_version,
                "kind": self._kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
            **({"series": _observed(series, seen)} if seen > 1 else {}),
        }


def _observed(series: _Series, seen: int) -> dict[str, Any]:
    return {"count": seen, "lastObservedTime": micro_timestamp(series.last)}
