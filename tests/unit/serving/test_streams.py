"""Streams have limits of their own: probes and scrapes are answered whatever streams do."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from controller import app
from controller.serving.auth import Refusal
from controller.serving.connections import Connections
from controller.serving.health import Health, LoopMonitor
from controller.serving.routes import Answer, Guard, Request, Route, text
from controller.serving.server import Server
from controller.serving.tls import Certificates
from tests.certificates import self_signed
from tests.unit.serving.clients import ask, connected, exchange, status_of

EVENTS = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
MORE_THAN_KERNELS_KEEP = b"x" * 32 * 1024 * 1024


class Page:
    """A handler with a queue for each open stream: a stream starts with a greeting, then sends what the queue gets."""

    def __init__(self, greeting: bytes = b"hello\n") -> None:
        self.greeting = greeting
        self.opened = 0
        self.open: list[asyncio.Queue[bytes | Exception | None]] = []
        self.stubborn = asyncio.Event()
        self.stubborn.set()

    async def __call__(self, _: Request) -> Answer:
        """Answer with a stream."""
        self.opened += 1
        return Answer(self._events(), headers={"Content-Type": "text/event-stream"})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.open.append(queue)
        try:
            yield self.greeting
            while (piece := await queue.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.open.remove(queue)
            await self.stubborn.wait()

    async def wait_for(self, count: int) -> None:
        """Wait until so many streams are open; the test's time limit bounds it."""
        while len(self.open) != count:  # noqa: ASYNC110 - what has no event
            await asyncio.sleep(0.01)


async def reachable() -> None:
    """Answer, as an API server that is up."""


def door(
    page: Page, connections: Connections | None = None, *, tls: ssl.SSLContext | None = None, guard: Guard | None = None
) -> Server:
    """Return a server of the product's routes, and of a page."""
    routes = [
        app.scrapes(CollectorRegistry(), (), None),
        *Health(LoopMonitor(), reachable, ended=tuple, sources=(), queues={}).routes(),
        Route("GET", "/events", page, guard=guard, streaming=True),
    ]
    return Server("127.0.0.1:0", routes, flag="--bind-address", tls=tls, connections=connections)


@asynccontextmanager
async def listening(
    server: Server, trust: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a stream, and read only its head."""
    async with connected(server, trust) as (reader, writer):
        writer.write(EVENTS)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        yield reader, writer


async def piece(reader: asyncio.StreamReader) -> bytes:
    """Return the next piece of a stream; empty at its regular end. Raises IncompleteReadError if it was aborted."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


# --- a stream ---------------------------------------------------------------------------------------------------


async def test_a_stream_is_sent_piece_by_piece() -> None:
    """It ends with the handler's generator; the connection can be used again."""
    page = Page()
    async with door(page) as server, listening(server) as (reader, writer):
        assert await piece(reader) == b"hello\n"
        page.open[0].put_nowait(b"news\n")
        assert await piece(reader) == b"news\n"
        page.open[0].put_nowait(None)
        assert await piece(reader) == b""
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_streaming_route_may_answer_with_bytes() -> None:
    """When there is nothing to stream."""

    async def refuses(_: Request) -> Answer:
        return text("no such page", 400)

    async with Server("127.0.0.1:0", [Route("GET", "/", refuses, streaming=True)], flag="--x") as server:
        assert await ask(server, "/") == (400, "no such page")


async def test_a_route_that_is_not_streaming_cannot_stream() -> None:
    """Its streams would be unlimited."""
    page = Page()
    async with Server("127.0.0.1:0", [Route("GET", "/", page)], flag="--x") as server:
        assert (await ask(server, "/"))[0] == 500
    assert page.open == []


async def test_head_on_a_streaming_route_gets_405() -> None:
    """No stream is opened."""
    page = Page()
    async with door(page) as server:
        head, _ = await exchange(server, b"HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET\r\n" in head
    assert page.opened == 0


# --- the number of streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "with all other connections held"])
async def test_probes_and_scrapes_are_answered_while_all_streams_are_taken_and_stalled(others: int) -> None:
    """Even when the limit of connections is below that of streams."""
    page = Page(MORE_THAN_KERNELS_KEEP)
    async with door(page, Connections(most=2, streams=5)) as server, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(listening(server))
        for _ in range(others):
            await stack.enter_async_context(connected(server))
        assert await ask(server, "/healthz") == (200, "ok")
        assert await ask(server, "/readyz") == (200, "ok")
        assert (await ask(server, "/metrics"))[0] == 200
        assert len(page.open) == 5


async def test_a_stream_above_the_limit_gets_503_until_another_ends() -> None:
    """With Retry-After; the handler does not run, and the connection stays open."""
    page = Page()
    async with door(page, Connections(streams=1)) as server:
        async with listening(server), connected(server) as (reader, writer):
            head, body = await exchange(server, EVENTS)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert int(re.findall(rb"\r\nRetry-After: (\d+)\r\n", head)[0]) > 0
            assert body == b"at most 1 streams may be open at a time; try again later"
            assert page.opened == 1
            for request in (EVENTS, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
                writer.write(request)
            assert b"HTTP/1.1 200 OK" in await asyncio.wait_for(reader.read(), 10)
        await page.wait_for(0)
        async with listening(server):
            assert page.opened == 2


async def test_an_unauthorized_client_takes_no_stream() -> None:
    """The guard decides first."""

    class NobodyGuard:
        async def refusal(self, _: str | None) -> Refusal | None:
            return Refusal(401, "Unauthorized")

    page = Page()
    async with door(page, Connections(streams=0), guard=NobodyGuard()) as server:
        assert await status_of(server, EVENTS) == 401
    assert page.opened == 0


# --- clients ----------------------------------------------------------------------------------------------------


async def test_a_stream_ends_when_its_client_disconnects() -> None:
    """Even while it waits for its next piece."""
    page, connections = Page(), Connections()
    async with door(page, connections) as server:
        async with listening(server):
            await page.wait_for(1)
        await page.wait_for(0)
        while connections.count:  # noqa: ASYNC110 - what has no event; the limit of the test bounds it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
async def test_a_client_that_reads_its_stream_too_slowly_is_aborted(encrypted: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """After 10 s by default; then its slot is free."""
    page, connections = Page(MORE_THAN_KERNELS_KEEP), Connections(streams=1, piece=0.3)
    certificates = Certificates(self_signed(tmp_path, "server")) if encrypted else None
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if encrypted else None
    if certificates is not None and trust is not None:
        trust.load_verify_locations(certificates.files.certificate)
    async with (
        door(page, connections, tls=certificates.context if certificates else None) as server,
        listening(server, trust),
    ):
        await page.wait_for(1)
        page.open[0].put_nowait(MORE_THAN_KERNELS_KEEP)  # TLS takes a first piece in hand, however large it is
        await page.wait_for(0)
        assert connections.count == 0


async def test_a_client_that_disconnects_before_its_stream_starts_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """It takes no slot, and nothing is logged."""

    class SlowGuard:
        asked, decided = asyncio.Event(), asyncio.Event()

        async def refusal(self, _: str | None) -> Refusal | None:
            self.asked.set()
            await self.decided.wait()
            return None

    page, connections, guard = Page(), Connections(), SlowGuard()
    async with door(page, connections, guard=guard) as server:
        async with connected(server) as (_, writer):
            writer.write(EVENTS)
            await guard.asked.wait()
        while connections.count:  # noqa: ASYNC110 - what has no event; the limit of the test bounds it
            await asyncio.sleep(0.01)
        guard.decided.set()
        while not page.opened:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    assert (page.open, caplog.records) == ([], [])


async def test_a_client_that_disconnects_with_unread_pieces_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """No further piece is produced for it."""
    page = Page()
    async with door(page, Connections(piece=0.5)) as server, listening(server) as (_, writer):
        await page.wait_for(1)
        page.open[0].put_nowait(b"x" * 1024 * 1024 * 8)
        for _ in range(9):
            page.open[0].put_nowait(b"x" * 1024)
        writer.write_eof()
        await page.wait_for(0)
    assert caplog.records == []


async def test_the_buffer_for_a_slow_client_is_bounded() -> None:
    """The next piece is produced only once the buffer has space for it."""
    sent = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            sent += 1024 * 1024
            yield b"x" * 1024 * 1024

    async def handler(_: Request) -> Answer:
        return Answer(endless(), headers={"Content-Type": "text/event-stream"})

    route = Route("GET", "/events", handler, streaming=True)
    async with (
        Server("127.0.0.1:0", [route], flag="--x", connections=Connections(piece=0.5)) as server,
        listening(server),
    ):
        await asyncio.sleep(0.2)
    assert sent < len(MORE_THAN_KERNELS_KEEP)


# --- handlers ---------------------------------------------------------------------------------------------------


async def test_a_failing_stream_aborts_its_own_connection_only() -> None:
    """Its client sees an incomplete response; other streams and probes go on."""
    page = Page()
    async with door(page) as server, listening(server) as (failing, _), listening(server) as (other, _):
        assert [await piece(reader) for reader in (failing, other)] == [b"hello\n"] * 2
        page.open[0].put_nowait(ZeroDivisionError("of this one"))
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(piece(failing), 10)
        page.open[0].put_nowait(b"news\n")
        assert await piece(other) == b"news\n"
        assert await ask(server, "/healthz") == (200, "ok")


async def test_a_handler_that_fails_before_its_stream_starts_gets_500() -> None:
    """Its slot is free again."""

    async def fails(_: Request) -> Answer:
        raise ZeroDivisionError

    connections = Connections(streams=1)
    route = Route("GET", "/", fails, streaming=True)
    async with Server("127.0.0.1:0", [route], flag="--x", connections=connections) as server:
        assert [(await ask(server, "/"))[0] for _ in range(2)] == [500, 500]


# --- shutdown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greeting", [b"hello\n", MORE_THAN_KERNELS_KEEP], ids=["silent", "stalled"])
async def test_streams_end_when_the_server_shuts_down(greeting: bytes) -> None:
    """At once: clients see an incomplete response, and generators are closed."""
    page = Page(greeting)
    async with AsyncExitStack() as stack:
        async with door(page) as server:
            readers = [(await stack.enter_async_context(listening(server)))[0] for _ in range(3)]
            await page.wait_for(3)
            began = time.monotonic()
        assert time.monotonic() - began < 0.9
        assert page.open == []
        for reader in readers:
            assert not (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")


async def test_a_stream_that_ignores_cancellation_does_not_block_the_shutdown() -> None:
    """It has 2 s, as any other response."""
    page = Page()
    page.stubborn.clear()
    async with AsyncExitStack() as stack:
        async with door(page) as server:
            await stack.enter_async_context(listening(server))
            await page.wait_for(1)
            began = time.monotonic()
        assert time.monotonic() - began < 4
    page.stubborn.set()
