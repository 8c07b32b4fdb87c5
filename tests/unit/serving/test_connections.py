"""Connections are limited in time and number, and no client can lock out others."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import cast

import pytest

from controller.serving.connections import Connections, TooManyStreamsError

pytestmark = pytest.mark.looptime


class Socket:
    """A fake transport that reports a lost connection when it is aborted, as the event loop does."""

    def __init__(self, connections: Connections) -> None:
        self.aborted_at: float | None = None
        self.inner = Inner()
        self.protocol = connections.guarded(lambda: self.inner)()
        self.protocol.connection_made(self.transport)

    @property
    def transport(self) -> asyncio.Transport:
        """This object, typed as a transport."""
        return cast("asyncio.Transport", self)

    def abort(self) -> None:
        """Record the time."""
        assert self.aborted_at is None
        loop = asyncio.get_running_loop()
        self.aborted_at = loop.time()
        loop.call_soon(self.protocol.connection_lost, None)


class Inner(asyncio.Protocol):
    """A protocol that records its callbacks."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record it."""
        del transport
        self.told.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        """Record it."""
        del exc
        self.told.append("lost")

    def data_received(self, data: bytes) -> None:
        """Record it."""
        self.told.append(data)

    def eof_received(self) -> bool:
        """Record it, and keep the connection half open."""
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        """Record it."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Record it."""
        self.told.append("resume")


async def test_a_connection_without_a_complete_request_is_aborted() -> None:
    """Bytes that arrive do not extend the timeout."""
    connections = Connections(first=10)
    socket = Socket(connections)
    for _ in range(15):
        socket.protocol.data_received(b"x")
        await asyncio.sleep(1)
    assert socket.aborted_at == 10
    assert connections.count == 0


async def test_a_slow_response_is_not_timed() -> None:
    """The server's own slowness does not count against the client."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    await asyncio.sleep(9)
    with connections.answering(socket.transport):
        await asyncio.sleep(1000)
    assert socket.aborted_at is None


async def test_an_idle_connection_is_aborted_after_its_response() -> None:
    """Whether the client is idle, or does not read the response."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with connections.answering(socket.transport):
        pass
    await asyncio.sleep(61)
    assert socket.aborted_at == 60


async def test_a_connection_with_regular_requests_is_retained() -> None:
    """A scrape a minute, on one connection."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    for _ in range(10):
        with connections.answering(socket.transport):
            await asyncio.sleep(1)
        await asyncio.sleep(59)
    assert socket.aborted_at is None


async def test_a_failed_response_leaves_the_connection_timed() -> None:
    """As one that succeeds."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with pytest.raises(LookupError), connections.answering(socket.transport):
        raise LookupError
    await asyncio.sleep(61)
    assert socket.aborted_at == 60


async def test_the_longest_idle_connection_is_aborted_above_the_maximum() -> None:
    """A request resets the order."""
    connections = Connections(most=3)
    first, second, third = (Socket(connections) for _ in range(3))
    with connections.answering(first.transport):
        pass
    fourth = Socket(connections)
    assert [one.aborted_at for one in (first, second, third, fourth)] == [None, 0, None, None]
    assert connections.count == 3


async def test_a_connection_with_a_request_in_flight_is_not_aborted() -> None:
    """If all have one, the newest connection is aborted."""
    connections = Connections(most=2)
    one, two = Socket(connections), Socket(connections)
    with connections.answering(one.transport), connections.answering(two.transport):
        three = Socket(connections)
        assert [socket.aborted_at for socket in (one, two, three)] == [None, None, 0]


async def test_a_lost_connection_is_not_counted() -> None:
    """Idle or with a request in flight, which then ends as any other."""
    connections = Connections(first=10)
    idle, busy = Socket(connections), Socket(connections)
    with connections.answering(busy.transport):
        idle.protocol.connection_lost(None)
        busy.protocol.connection_lost(None)
        assert connections.count == 0
    assert connections.count == 0
    await asyncio.sleep(100)
    assert (idle.aborted_at, busy.aborted_at) == (None, None)


async def test_a_request_of_a_lost_connection_is_answered_without_error() -> None:
    """aiohttp has no transport for it then."""
    connections = Connections()
    with connections.answering(None):
        pass
    assert connections.count == 0


async def test_all_callbacks_of_the_protocol_are_delegated() -> None:
    """Return values are passed back."""
    socket = Socket(Connections())
    socket.protocol.data_received(b"GET")
    assert socket.protocol.eof_received() is True
    socket.protocol.pause_writing()
    socket.protocol.resume_writing()
    socket.protocol.connection_lost(None)
    assert socket.inner.told == ["made", b"GET", "eof", "pause", "resume", "lost"]


# --- bodies ----------------------------------------------------------------------------------------------------


async def test_a_connection_with_an_incomplete_body_is_aborted() -> None:
    """Even if its headers came in time."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    await asyncio.sleep(9)
    with connections.answering(socket.transport), connections.receiving(socket.transport):
        await asyncio.sleep(11)
    assert socket.aborted_at == 19
    assert connections.count == 0


async def test_a_complete_request_is_not_timed() -> None:
    """The timeout ends with the request, and starts anew after the response."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with connections.answering(socket.transport):
        with connections.receiving(socket.transport):
            await asyncio.sleep(9)
        await asyncio.sleep(1000)
    assert socket.aborted_at is None
    await asyncio.sleep(61)
    assert socket.aborted_at == 1069


async def test_a_connection_with_an_incomplete_body_counts_as_idle() -> None:
    """No client can occupy all connections by sending slowly."""
    connections = Connections(most=2)
    slow, busy = Socket(connections), Socket(connections)
    with (
        connections.answering(slow.transport),
        connections.answering(busy.transport),
        connections.receiving(slow.transport),
    ):
        new = Socket(connections)
        assert [socket.aborted_at for socket in (slow, busy, new)] == [0, None, None]
    assert connections.count == 2


async def test_receiving_on_a_lost_connection_is_no_error() -> None:
    """The reader of the body gets the error."""
    connections = Connections()
    with connections.answering(None), connections.receiving(None):
        pass
    assert connections.count == 0


# --- streams ---------------------------------------------------------------------------------------------------


async def test_streams_do_not_count_against_other_connections() -> None:
    """They have a limit of their own."""
    connections = Connections(most=2, streams=3)
    with ExitStack() as stack:
        streams = []
        for _ in range(3):
            streams.append(Socket(connections))
            stack.enter_context(connections.answering(streams[-1].transport))
            stack.enter_context(connections.streaming(streams[-1].transport))
        others = [Socket(connections) for _ in range(2)]
        assert [socket.aborted_at for socket in (*streams, *others)] == [None] * 5
        assert connections.count == 5


async def test_a_connection_whose_stream_ended_counts_among_the_others() -> None:
    """Then the longest idle one is aborted."""
    connections = Connections(most=1)
    stream = Socket(connections)
    with connections.answering(stream.transport), connections.streaming(stream.transport):
        other = Socket(connections)
    assert (stream.aborted_at, other.aborted_at) == (None, 0)
    assert connections.count == 1


async def test_a_stream_above_the_limit_is_refused_until_another_ends() -> None:
    """Its connection may send other requests."""
    connections = Connections(streams=1)
    one, two = Socket(connections), Socket(connections)
    with connections.answering(one.transport), connections.answering(two.transport):
        with connections.streaming(one.transport):
            with pytest.raises(TooManyStreamsError, match="1 streams"), connections.streaming(two.transport):
                pass
            assert two.aborted_at is None
        with connections.streaming(two.transport):
            pass


@pytest.mark.parametrize("end", ["connection", "server"])
async def test_the_task_of_a_stream_is_cancelled(end: str) -> None:
    """When its connection is lost, or the server shuts down."""
    connections = Connections()
    socket = Socket(connections)

    async def stream() -> None:
        with connections.answering(socket.transport), connections.streaming(socket.transport):
            await asyncio.Event().wait()

    task = asyncio.create_task(stream())
    await asyncio.sleep(100)
    if end == "connection":
        socket.protocol.connection_lost(None)
    else:
        connections.end_streams()
    await asyncio.wait([task])
    assert task.cancelled()
    assert connections.count == (0 if end == "connection" else 1)


async def test_a_client_that_reads_a_stream_too_slowly_is_aborted() -> None:
    """Each piece has a timeout; between pieces a stream may be silent."""
    connections = Connections(piece=10)
    socket = Socket(connections)

    async def stream() -> None:
        with connections.answering(socket.transport), connections.streaming(socket.transport):
            for seconds in (9, 9, 11):
                with connections.writing(socket.transport):
                    await asyncio.sleep(seconds)
                await asyncio.sleep(1000)

    task = asyncio.create_task(stream())
    await asyncio.wait([task])
    assert task.cancelled()
    assert socket.aborted_at == 9 + 1000 + 9 + 1000 + 10
    assert connections.count == 0


async def test_a_stream_on_a_lost_connection_is_no_error() -> None:
    """aiohttp's writer raises the error."""
    connections = Connections(streams=1)
    for _ in range(2):
        with connections.answering(None), connections.streaming(None), connections.writing(None):
            pass
    assert connections.count == 0
