"""The bounds on a server's connections: how long each may keep us waiting, and how many there are.

Guarantees: a client that has not sent a whole request some seconds after connecting, however slowly it goes on sending
one, is cut off, and so is one that neither takes its answer nor asks again for a minute; when there are too many
connections, the one that has been idle the longest gives way, so that whoever holds them shuts out nobody else.

aiohttp bounds a request's size, but waits for ever for a connection's first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, cast

FIRST_REQUEST: Final = 10.0
"""Seconds from the connection, or from the end of a TLS handshake, to the end of the first request's headers."""
NEXT_REQUEST: Final = 65.0
"""Seconds from an answer to the end of the next request's headers. Prometheus scrapes once a minute by default, and may
keep its connection."""
MOST: Final = 256
"""Connections at a time. Scrapes and probes need a few."""


class Connections:
    """Keeps a server's connections within the bounds: `first` and `following` in seconds, and at `most` so many."""

    def __init__(self, *, first: float = FIRST_REQUEST, following: float = NEXT_REQUEST, most: int = MOST) -> None:
        self._first = first
        self._following = following
        self._most = most
        self._idle: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        """Those that owe us a request, each with the end of our patience; the longest idle first."""
        self._busy: set[asyncio.Transport] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._idle) + len(self._busy)

    def guarded(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory for `loop.create_server`, whose connections are counted and timed here."""
        return lambda: _Guarded(factory(), self)

    @contextmanager
    def answering(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Let a connection wait for our answer; None is one that was lost meanwhile."""
        timer = self._idle.pop(transport, None) if transport is not None else None
        if transport is None or timer is None:
            yield
            return
        timer.cancel()
        self._busy.add(transport)
        try:
            yield
        finally:
            if transport in self._busy:
                self._busy.discard(transport)
                self._wait(transport, self._following)

    def opened(self, transport: asyncio.Transport) -> None:
        """Take a new connection in."""
        self._wait(transport, self._first)
        if self.count > self._most:
            self._cut_off(next(iter(self._idle)))

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._busy.discard(transport)
        timer = self._idle.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _wait(self, transport: asyncio.Transport, patience: float) -> None:
        self._idle[transport] = asyncio.get_running_loop().call_later(patience, self._cut_off, transport)

    def _cut_off(self, transport: asyncio.Transport) -> None:
        self.closed(transport)
        transport.abort()  # to close would wait until the client has taken what was written


class _Guarded(asyncio.Protocol):
    """Passes everything on, and tells of the connection's beginning and end."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by birth
        self._inner.connection_made(transport)
        self._connections.opened(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.closed(self._transport)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
