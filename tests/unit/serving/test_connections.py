"""Connections are bounded in time and number, and whoever holds them shuts nobody else out."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import cast

import pytest

from controller.serving.connections import Connections, TooManyStreamsError

pytestmark = pytest.mark.looptime


class Socket:
    """A transport, as far as it is needed; loses its protocol's connection when aborted, as the event loop would."""

    def __init__(self, connections: Connections) -> None:
        self.aborted_at: float | None = None
        self.inner = Inner()
        self.protocol = connections.guarded(lambda: self.inner)()
        self.protocol.connection_made(self.transport)

    @property
    def transport(self) -> asyncio.Transport:
        """Itself, as the type that others want."""
        return cast("asyncio.Transport", self)

    def abort(self) -> None:
        """Note when."""
        assert self.aborted_at is None
        loop = asyncio.get_running_loop()
        self.aborted_at = loop.time()
        loop.call_soon(self.protocol.connection_lost, None)


class Inner(asyncio.Protocol):
    """What the connection is for: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        del transport
        self.told.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        del exc
        self.told.append("lost")

    def data_received(self, data: bytes) -> None:
        """Note it."""
        self.told.append(data)

    def eof_received(self) -> bool:
        """Note it, and want to stay half open."""
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.told.append("resume")


async def test_a_connection_without_a_request_is_cut_off() -> None:
    """However many bytes come: each of them buys no time."""
    connections = Connections(first=10)
    socket = Socket(connections)
    for _ in range(15):
        socket.protocol.data_received(b"x")
        await asyncio.sleep(1)
    assert socket.aborted_at == 10
    assert connections.count == 0


async def test_an_answer_may_take_its_time() -> None:
    """Our own slowness is not the client's."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    await asyncio.sleep(9)
    with connections.answering(socket.transport):
        await asyncio.sleep(1000)
    assert socket.aborted_at is None


async def test_a_client_that_asks_no_more_is_cut_off_a_while_after_its_answer() -> None:
    """Whether it is idle, or does not take what it was answered."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with connections.answering(socket.transport):
        pass
    await asyncio.sleep(61)
    assert socket.aborted_at == 60


async def test_a_client_that_goes_on_asking_stays() -> None:
    """A scrape a minute, on one connection."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    for _ in range(10):
        with connections.answering(socket.transport):
            await asyncio.sleep(1)
        await asyncio.sleep(59)
    assert socket.aborted_at is None


async def test_an_answer_that_fails_leaves_the_connection_bounded() -> None:
    """As one that does not."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with pytest.raises(LookupError), connections.answering(socket.transport):
        raise LookupError
    await asyncio.sleep(61)
    assert socket.aborted_at == 60


async def test_the_connection_that_is_idle_the_longest_gives_way() -> None:
    """So that the newest gets its answer; who asked meanwhile is not the longest idle any more."""
    connections = Connections(most=3)
    first, second, third = (Socket(connections) for _ in range(3))
    with connections.answering(first.transport):
        pass
    fourth = Socket(connections)
    assert [one.aborted_at for one in (first, second, third, fourth)] == [None, 0, None, None]
    assert connections.count == 3


async def test_a_connection_with_a_request_does_not_give_way() -> None:
    """If all have one, the newest goes."""
    connections = Connections(most=2)
    one, two = Socket(connections), Socket(connections)
    with connections.answering(one.transport), connections.answering(two.transport):
        three = Socket(connections)
        assert [socket.aborted_at for socket in (one, two, three)] == [None, None, 0]


async def test_a_lost_connection_is_forgotten() -> None:
    """Idle, or in the middle of an answer, which then ends as any other."""
    connections = Connections(first=10)
    idle, busy = Socket(connections), Socket(connections)
    with connections.answering(busy.transport):
        idle.protocol.connection_lost(None)
        busy.protocol.connection_lost(None)
        assert connections.count == 0
    assert connections.count == 0
    await asyncio.sleep(100)
    assert (idle.aborted_at, busy.aborted_at) == (None, None)


async def test_a_request_whose_connection_is_gone_is_answered_all_the_same() -> None:
    """aiohttp has no transport of it any more."""
    connections = Connections()
    with connections.answering(None):
        pass
    assert connections.count == 0


async def test_everything_is_passed_on() -> None:
    """And what the protocol answers is passed back."""
    socket = Socket(Connections())
    socket.protocol.data_received(b"GET")
    assert socket.protocol.eof_received() is True
    socket.protocol.pause_writing()
    socket.protocol.resume_writing()
    socket.protocol.connection_lost(None)
    assert socket.inner.told == ["made", b"GET", "eof", "pause", "resume", "lost"]


# --- bodies ----------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_finish_its_request_is_cut_off() -> None:
    """Though its headers came in time."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    await asyncio.sleep(9)
    with connections.answering(socket.transport), connections.receiving(socket.transport):
        await asyncio.sleep(11)
    assert socket.aborted_at == 19
    assert connections.count == 0


async def test_a_request_that_came_whole_may_be_answered_slowly() -> None:
    """Patience is over with its end, and begins anew after the answer."""
    connections = Connections(first=10, following=60)
    socket = Socket(connections)
    with connections.answering(socket.transport):
        with connections.receiving(socket.transport):
            await asyncio.sleep(9)
        await asyncio.sleep(1000)
    assert socket.aborted_at is None
    await asyncio.sleep(61)
    assert socket.aborted_at == 1069


async def test_a_request_that_has_not_come_whole_gives_way() -> None:
    """Nobody can hold all connections by sending slowly."""
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


async def test_a_request_whose_connection_is_lost_is_received_all_the_same() -> None:
    """What reads it is told by another way."""
    connections = Connections()
    with connections.answering(None), connections.receiving(None):
        pass
    assert connections.count == 0


# --- streams ---------------------------------------------------------------------------------------------------


async def test_streams_take_no_other_connection_its_place() -> None:
    """They count besides."""
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


async def test_a_stream_that_ends_counts_among_the_others_again() -> None:
    """Then the one that has been idle the longest gives way."""
    connections = Connections(most=1)
    stream = Socket(connections)
    with connections.answering(stream.transport), connections.streaming(stream.transport):
        other = Socket(connections)
    assert (stream.aborted_at, other.aborted_at) == (None, 0)
    assert connections.count == 1


async def test_one_stream_too_many_is_refused_until_another_ends() -> None:
    """Its connection may ask for something else."""
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
async def test_who_writes_a_stream_is_cancelled_with_it(end: str) -> None:
    """When its connection is lost, or the server ends."""
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


async def test_a_client_that_does_not_take_a_piece_of_a_stream_is_cut_off() -> None:
    """Each piece has its time; between two a stream may be silent for ever."""
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


async def test_a_stream_whose_connection_is_lost_before_it_begins_is_written_all_the_same() -> None:
    """aiohttp's writer says that nobody is there."""
    connections = Connections(streams=1)
    for _ in range(2):
        with connections.answering(None), connections.streaming(None), connections.writing(None):
            pass
    assert connections.count == 0
