"""A route gets the requests of its method and path that its guard allows, with a body within its limit."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from controller.serving.auth import Refusal
from controller.serving.connections import Connections
from controller.serving.routes import Answer, Guard, Request, Route, text
from controller.serving.server import Server
from tests.unit.serving.clients import ask, connected, exchange, status_of

LIMIT = 1000


class Desk:
    """Answers with what it is asked, and writes it down."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def __call__(self, request: Request) -> Answer:
        """Answer."""
        self.asked.append(request)
        return Answer(request.body, 201, {"X-Kind": "echo"})


def door(*routes: Route, connections: Connections | None = None) -> Server:
    """Return a server of some routes."""
    return Server("127.0.0.1:0", routes, flag="--bind-address", connections=connections)


def post(desk: Desk, guard: Guard | None = None) -> Route:
    """Return a route that accepts bodies."""
    return Route("POST", "/echo", desk, body_limit=LIMIT, guard=guard)


def whole(body: bytes) -> bytes:
    """Return a request with a Content-Length."""
    return b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def chunked(*chunks: bytes) -> bytes:
    """Return a request with a chunked body."""
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + parts


# --- requests and responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [whole(b"a" * LIMIT), chunked(*[b"a" * 100] * 10)], ids=["whole", "chunked"])
async def test_a_body_within_the_limit_is_passed_to_the_handler(request_: bytes) -> None:
    """However it is encoded; the response has the handler's status, headers and body."""
    desk = Desk()
    async with door(post(desk)) as server:
        head, body = await exchange(server, request_)
    assert head.startswith(b"HTTP/1.1 201 Created\r\nX-Kind: echo\r\n")
    assert body == b"a" * LIMIT
    assert [request.body for request in desk.asked] == [b"a" * LIMIT]


@pytest.mark.parametrize(
    "request_",
    [
        whole(b"a" * (LIMIT + 1)),
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        chunked(b"a" * LIMIT, b"a"),
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"a" * 1001,
    ],
    ids=["whole", "announced", "chunked", "without end"],
)
async def test_a_body_above_the_limit_is_refused_before_the_handler_runs(request_: bytes) -> None:
    """The text has the limit; the rest of the body is not awaited."""
    desk = Desk()
    async with door(post(desk)) as server:
        head, body = await exchange(server, request_)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b"the body has more than 1000 bytes"
    assert desk.asked == []


async def test_a_route_without_a_limit_reads_no_body() -> None:
    """Its handler gets an empty body."""
    desk = Desk()
    async with door(Route("POST", "/echo", desk)) as server:
        assert await status_of(server, whole(b"a")) == 201
    assert [request.body for request in desk.asked] == [b""]


async def test_a_handler_gets_the_headers() -> None:
    """By their names in lower case; a repeated header is joined with commas."""
    desk = Desk()
    async with door(Route("GET", "/", desk)) as server:
        await status_of(server, b"GET / HTTP/1.1\r\nHOST: x\r\naccept: a\r\nAccept: b, c\r\n\r\n")
    assert [request.headers for request in desk.asked] == [{"host": "x", "accept": "a,b, c"}]


async def test_a_path_may_have_several_methods() -> None:
    """Each with its handler; any other gets 405 with an Allow header."""
    get, change = Desk(), Desk()
    async with door(Route("GET", "/echo", get), post(change)) as server:
        assert await status_of(server, b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n") == 201
        assert await status_of(server, whole(b"a")) == 201
        head, _ = await exchange(server, b"DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET,HEAD,POST\r\n" in head
    assert (len(get.asked), len(change.asked)) == (1, 1)


async def test_get_on_a_path_with_post_only_gets_405() -> None:
    """With an Allow header; an unknown path gets 404."""
    async with door(post(Desk())) as server:
        head, _ = await exchange(server, b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: POST\r\n" in head
        assert (await ask(server, "/echo/more"))[0] == 404


async def test_a_failing_handler_fails_its_own_request_only() -> None:
    """With 500, and without the exception's text."""

    async def fails(_: Request) -> Answer:
        raise ZeroDivisionError("of a secret")

    async with door(Route("GET", "/fails", fails), Route("GET", "/works", Desk())) as server:
        status, body = await ask(server, "/fails")
        assert (status, "secret" in body) == (500, False)
        assert (await ask(server, "/works"))[0] == 201


# --- guards ----------------------------------------------------------------------------------------------------


class NobodyGuard:
    """Refuses every request."""

    async def refusal(self, _: str | None) -> Refusal | None:
        """Refuse."""
        return Refusal(401, "Unauthorized")


async def test_a_guard_decides_before_the_body_is_read() -> None:
    """An unauthorized client cannot make the server buffer its body."""
    desk = Desk()
    async with door(post(desk, NobodyGuard())) as server:
        head, body = await exchange(server, whole(b"a" * (LIMIT + 1)))
    assert head.startswith(b"HTTP/1.1 401 ")
    assert body == b"Unauthorized"
    assert desk.asked == []


async def test_a_guard_applies_to_its_own_route_only() -> None:
    """Another route on the same server is open."""
    async with door(post(Desk(), NobodyGuard()), Route("GET", "/open", Desk())) as server:
        assert (await ask(server, "/open"))[0] == 201


# --- bounds ----------------------------------------------------------------------------------------------------


async def test_a_client_that_sends_its_body_too_slowly_is_aborted() -> None:
    """The handler does not run, and nothing is logged."""
    desk = Desk()
    with capture_logs() as logs:
        async with (
            door(post(desk), connections=Connections(first=0.2)) as server,
            connected(server) as (reader, writer),
        ):
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
            assert await asyncio.wait_for(reader.read(), 10) == b""
    assert (desk.asked, logs) == ([], [])


async def test_a_client_that_disconnects_within_its_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The handler does not run, and nothing is logged."""
    desk, connections = Desk(), Connections()
    async with door(post(desk), connections=connections) as server:
        async with connected(server) as (_, writer):
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
            await asyncio.sleep(0.05)
        while connections.count:  # noqa: ASYNC110 - what has no event; the limit of the test bounds it
            await asyncio.sleep(0.01)
    assert (desk.asked, caplog.records) == ([], [])


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnonsense",
    ],
    ids=["chunks", "compression"],
)
async def test_a_malformed_body_is_refused(request_: bytes) -> None:
    """As the client's error, before the handler runs."""
    desk = Desk()
    async with door(post(desk)) as server:
        assert await status_of(server, request_) == 400
    assert desk.asked == []


async def test_slow_bodies_on_all_connections_do_not_lock_out_others() -> None:
    """The newest connection is answered."""
    desk = Desk()
    async with door(post(desk), connections=Connections(most=3)) as server, AsyncExitStack() as stack:
        for _ in range(6):
            _, writer = await stack.enter_async_context(connected(server))
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
            await asyncio.sleep(0.01)
        assert await status_of(server, whole(b"a")) == 201
    assert len(desk.asked) == 1


# --- several servers -------------------------------------------------------------------------------------------


async def test_each_server_has_routes_and_limits_of_its_own() -> None:
    """Full connections of one do not affect the other."""
    async with (
        door(Route("GET", "/one", Desk()), connections=Connections(most=1)) as one,
        door(Route("GET", "/two", Desk())) as two,
        connected(one),
    ):
        assert one.url != two.url
        assert [(await ask(two, path))[0] for path in ("/one", "/two")] == [404, 201]
        assert [(await ask(one, path))[0] for path in ("/one", "/two")] == [201, 404]


def test_text_is_plain_and_may_have_headers() -> None:
    """In UTF-8."""
    answer = text("é", 429, {"Retry-After": "1"})
    assert answer == Answer("é".encode(), 429, {"Retry-After": "1", "Content-Type": "text/plain; charset=utf-8"})
