"""Limits on a server's connections: their number and the time that each may take.

Guarantees: a connection is aborted when its first request is incomplete 10 s after connecting, or when the headers of
the next request are incomplete 65 s after a response. Above the maximum number of connections, the one that
has been idle the longest is aborted, so that no client can lock out the others. Streaming responses have a limit of
their own and do not count against the other connections; a client that reads its stream too slowly is cut off.

aiohttp limits the size of a request, but waits without a limit for a connection's first request and for the end of a
body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

FIRST_REQUEST: Final = 10.0
"""Seconds from the connection, or from the end of its TLS handshake, to the end of the first request's headers. The
body of a request, where one is read, may take as long again."""
NEXT_REQUEST: Final = 65.0
"""Seconds from a response to the end of the next request's headers. Prometheus scrapes once a minute by default, over a
kept-alive connection."""
MOST: Final = 256
"""Concurrent connections, without those that stream. Scrapes and probes need a few."""
MOST_STREAMS: Final = 32
"""Concurrent streaming responses."""
PIECE: Final = 10.0
"""Seconds in which a client has to read enough of a stream for the next piece to be written. Meanwhile the server
buffers one piece and some 64 KiB, with TLS 512 KiB."""


class TooManyStreamsError(Exception):
    """The maximum number of streams is open. The message names it."""


class Connections:
    """Enforces the limits: `first`, `following` and `piece` are in seconds, `most` and `streams` are counts."""

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
        """Connections that await (the rest of) a request, each with its timeout; the longest idle first."""
        self._busy: set[asyncio.Transport] = set()
        self._streaming: dict[asyncio.Transport, asyncio.Task[Any]] = {}
        """Connections whose response streams, each with the task that writes it."""

    @property
    def count(self) -> int:
        """The number of open connections."""
        return len(self._idle) + len(self._busy) + len(self._streaming)

    def guarded(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory for `loop.create_server` whose connections are limited by this object."""
        return lambda: _Guarded(factory(), self)

    @contextmanager
    def answering(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Suspend a connection's timeout while its request is answered; None is a connection that has been lost."""
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
        """Time a connection while its request's body is read; it counts as idle meanwhile, and may be aborted."""
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
        """Let a connection's response stream without a timeout; a lost connection cancels the current task.

        Raises TooManyStreamsError.
        """
        if len(self._streaming) >= self._most_streams:
            raise TooManyStreamsError(f"at most {self._most_streams} streams may be open at a time; try again later")
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
        """Abort a connection whose client does not make space for a piece of its stream in time."""
        if transport is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(self._piece, self._cut_off, transport)
        try:
            yield
        finally:
            timer.cancel()

    def end_streams(self) -> None:
        """Cancel the task of every streaming response."""
        for task in self._streaming.values():
            task.cancel()

    def opened(self, transport: asyncio.Transport) -> None:
        """Start to time a new connection, and enforce the maximum."""
        self._wait(transport, self._first)

    def closed(self, transport: asyncio.Transport) -> None:
        """Drop the state of a connection, and cancel its stream."""
        self._busy.discard(transport)
        self._stop_waiting(transport)
        task = self._streaming.pop(transport, None)
        if task is not None:
            task.cancel()

    def _wait(self, transport: asyncio.Transport, timeout: float) -> None:
        self._idle[transport] = asyncio.get_running_loop().call_later(timeout, self._cut_off, transport)
        if len(self._idle) + len(self._busy) > self._most:
            self._cut_off(next(iter(self._idle)))

    def _stop_waiting(self, transport: asyncio.Transport) -> bool:
        """Cancel a connection's timeout; return whether it had one."""
        timer = self._idle.pop(transport, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _cut_off(self, transport: asyncio.Transport) -> None:
        self.closed(transport)
        transport.abort()  # close() would wait until the client has read its response


class _Guarded(asyncio.Protocol):
    """A protocol that delegates to another, and reports the start and the end of its connection."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from it
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
