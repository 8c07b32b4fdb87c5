"""The bounds on a server's connections: how long each may keep us waiting, and how many there are.

Guarantees: a client that has not sent a whole request some seconds after connecting, however slowly it goes on sending
one, is cut off, and so is one that neither takes its answer nor asks again for a minute; when there are too many
connections, the one that has been idle the longest gives way, so that whoever holds them shuts out nobody else.
Answers that stream have a bound of their own and count besides, so that no number of them costs another connection; a
client that does not take a stream as fast as it comes is cut off as well.

aiohttp bounds a request's size, but waits for ever for a connection's first one, and for the end of a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

FIRST_REQUEST: Final = 10.0
"""Seconds from the connection, or from the end of a TLS handshake, to the end of the first request's headers; as many
again from there to the end of a body that is read."""
NEXT_REQUEST: Final = 65.0
"""Seconds from an answer to the end of the next request's headers. Prometheus scrapes once a minute by default, and may
keep its connection."""
MOST: Final = 256
"""Connections at a time, without those that stream. Scrapes and probes need a few."""
MOST_STREAMS: Final = 32
"""Answers that stream at a time."""
PIECE: Final = 10.0
"""Seconds that a client may take to make room for a piece of a stream. Some 64 KiB, by TLS 512, and a
piece are kept for it meanwhile."""


class TooManyStreamsError(Exception):
    """As many answers stream as may. The message says how many."""


class Connections:
    """Keeps a server's connections within the bounds: `first`, `following` and `piece` in seconds, others in number."""

    def __init__(
        self,
        *,
        first: float = FIRST_REQUEST,
        following: float = NEXT_REQUEST,
        most: int = MOST,
        streams: int = MOST_STREAMS,
        piece: float = PIECE,
    ) -> None:
        self._first = first
        self._following = following
        self._most = most
        self._most_streams = streams
        self._piece = piece
        self._idle: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        """Those that owe us (the rest of) a request, each with the end of our patience; the longest idle first."""
        self._busy: set[asyncio.Transport] = set()
        self._streaming: dict[asyncio.Transport, asyncio.Task[Any]] = {}
        """Those whose answer streams, each with the task that writes it."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._idle) + len(self._busy) + len(self._streaming)

    def guarded(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory for `loop.create_server`, whose connections are counted and timed here."""
        return lambda: _Guarded(factory(), self)

    @contextmanager
    def answering(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Let a connection wait for our answer; None is one that was lost meanwhile."""
        if transport is None or not self._stop_waiting(transport):
            yield
            return
        self._busy.add(transport)
        try:
            yield
        finally:
            if transport in self._busy:
                self._busy.discard(transport)
                self._wait(transport, self._following)

    @contextmanager
    def receiving(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Have a connection that is answered owe us the rest of its request: it is timed, and may have to give way."""
        if transport is None or transport not in self._busy:
            yield
            return
        self._busy.discard(transport)
        self._wait(transport, self._first)
        try:
            yield
        finally:
            if self._stop_waiting(transport):
                self._busy.add(transport)

    @contextmanager
    def streaming(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Let the answer on a connection take for ever; once the connection is lost, the current task is cancelled.

        Raises TooManyStreamsError.
        """
        if len(self._streaming) >= self._most_streams:
            raise TooManyStreamsError(f"{self._most_streams} streams are open, and no more are served at a time")
        task = asyncio.current_task()
        if transport is None or transport not in self._busy or task is None:
            yield
            return
        self._busy.discard(transport)
        self._streaming[transport] = task
        try:
            yield
        finally:
            if self._streaming.pop(transport, None) is not None:
                self._busy.add(transport)

    @contextmanager
    def writing(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Give a client its time to make room for a piece of a stream."""
        if transport is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(self._piece, self._cut_off, transport)
        try:
            yield
        finally:
            timer.cancel()

    def end_streams(self) -> None:
        """Cancel every task whose answer streams."""
        for task in self._streaming.values():
            task.cancel()

    def opened(self, transport: asyncio.Transport) -> None:
        """Take a new connection in."""
        self._wait(transport, self._first)

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._busy.discard(transport)
        self._stop_waiting(transport)
        task = self._streaming.pop(transport, None)
        if task is not None:
            task.cancel()

    def _wait(self, transport: asyncio.Transport, patience: float) -> None:
        self._idle[transport] = asyncio.get_running_loop().call_later(patience, self._cut_off, transport)
        if len(self._idle) + len(self._busy) > self._most:
            self._cut_off(next(iter(self._idle)))

    def _stop_waiting(self, transport: asyncio.Transport) -> bool:
        """Return whether a connection owed us anything."""
        timer = self._idle.pop(transport, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

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
