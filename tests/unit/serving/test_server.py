"""The server answers probes and scrapes, and reports why it cannot listen."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from controller import app
from controller.kube import errors
from controller.serving.address import BindError, is_loopback, parse_address
from controller.serving.auth import Refusal
from controller.serving.connections import Connections
from controller.serving.health import Health, LoopMonitor
from controller.serving.routes import Guard
from controller.serving.server import Server
from controller.serving.tls import Certificates
from tests.certificates import self_signed
from tests.unit.serving.clients import ask, connected, status_of


async def reachable() -> None:
    """Answer, as an API server that is up."""


async def away() -> None:
    """Fail, as an API server that is down."""
    raise errors.TransportError("connection refused")


class FakeSource:
    """What fills a cache, and is connected."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.synced = asyncio.Event()
        self.connected = True


def new_server(
    address: str = "127.0.0.1:0",
    *,
    reach_api: Callable[[], Awaitable[None]] = reachable,
    registry: CollectorRegistry | None = None,
    synced: bool = True,
    alive: bool = True,
    tls: ssl.SSLContext | None = None,
    guard: Guard | None = None,
    connections: Connections | None = None,
) -> Server:
    """Return a server of a process in a given state. Needs a running loop."""
    cache = FakeSource()
    if synced:
        cache.answered.set()
        cache.synced.set()
    subject = Health(
        LoopMonitor(),
        reach_api,
        ended=lambda: [] if alive else ["reflector"],
        sources=[("pods", cache)],
        queues={},
    )
    return Server(
        address,
        [app.scrapes(registry or CollectorRegistry(), (), guard), *subject.routes()],
        flag="--metrics-bind-address",
        tls=tls,
        connections=connections,
    )


async def test_a_process_without_problems_is_healthy_and_ready() -> None:
    """Both probes answer ok."""
    async with new_server() as server:
        assert await ask(server, "/healthz") == (200, "ok")
        assert await ask(server, "/readyz") == (200, "ok")


async def test_an_ended_task_fails_the_liveness_probe() -> None:
    """503, with the reason."""
    async with new_server(alive=False) as server:
        await asyncio.sleep(0)
        assert await ask(server, "/healthz") == (503, "task reflector has ended")


async def test_an_outage_of_the_api_server_fails_readiness_only() -> None:
    """No replica is restarted for it."""
    async with new_server(reach_api=away) as server:
        assert await ask(server, "/readyz") == (503, "API server: connection refused")
        assert await ask(server, "/healthz") == (200, "ok")


async def test_every_problem_has_its_line() -> None:
    """Unsynced caches and the API server together."""
    async with new_server(synced=False, reach_api=away) as server:
        assert await ask(server, "/readyz") == (
            503,
            "cache of pods is not filled yet\nAPI server: connection refused",
        )
        assert (await ask(server, "/healthz"))[0] == 200


async def test_metrics_are_served() -> None:
    """In Prometheus' text format."""
    registry = CollectorRegistry()
    Gauge("things", "Number of things", registry=registry).set(3)

    async with new_server(registry=registry) as server:
        status, text = await ask(server, "/metrics")

    assert status == 200
    assert "things 3.0" in text


async def test_metrics_are_served_by_content_negotiation() -> None:
    """OpenMetrics, compressed."""
    wish = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
    async with (
        new_server() as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{server.url}/metrics", headers=wish) as response,
    ):
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert gzip.decompress(await response.read()) == b"# EOF\n"


async def test_an_unknown_path_gets_404() -> None:
    """For any other path."""
    async with new_server() as server:
        assert (await ask(server, "/"))[0] == 404


async def test_port_0_takes_a_free_port_and_url_names_it() -> None:
    """Two servers get different ports."""
    async with new_server() as one, new_server() as two:
        assert one.url.startswith("http://127.0.0.1:")
        assert one.url != two.url
        assert not one.url.endswith(":0")


async def test_the_port_is_free_after_the_shutdown() -> None:
    """A restart at the same address works at once."""
    async with new_server() as server:
        address = server.url.removeprefix("http://")
    async with new_server(address) as again:
        assert (await ask(again, "/healthz"))[0] == 200


async def test_a_port_in_use_is_named_with_the_flag_that_changes_it() -> None:
    """So that the user knows what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError) as caught:
            async with new_server(address):
                pass

    assert address in str(caught.value)
    assert "--metrics-bind-address" in str(caught.value)
    assert "in use" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["203.0.113.1:0", "a..b:0", f"{'x' * 64}:0"],
    ids=["not ours", "no name", "name too long"],
)
async def test_an_address_of_another_host_is_a_bind_error(address: str) -> None:
    """Whatever the resolver's or the kernel's error."""
    with pytest.raises(BindError, match="--metrics-bind-address"):
        async with new_server(address):
            pass


# --- TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate for this machine."""
    return Certificates(self_signed(tmp_path_factory.mktemp("pair"), "server"))


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    """Return a client context that trusts only this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.files.certificate)
    return context


async def test_with_a_certificate_everything_is_served_by_tls(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    """And the URL says so."""
    async with new_server(tls=certificates.context) as server, aiohttp.ClientSession() as session:
        assert server.url.startswith("https://127.0.0.1:")
        for path in ("/metrics", "/healthz", "/readyz"):
            async with session.get(f"{server.url}{path}", ssl=trusting) as response:
                assert response.status == 200


async def test_with_a_certificate_nothing_is_served_without_tls(certificates: Certificates) -> None:
    """The connection is closed."""
    async with new_server(tls=certificates.context) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url.replace("https", "http") + "/healthz")


# --- authorization ---------------------------------------------------------------------------------------------


class FakeGuard:
    """Allows one Authorization header, and refuses every other with one refusal."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Decide."""
        return None if authorization == "Bearer good" else self._refusal


@pytest.mark.parametrize("path", ["/metrics", "/metrics?x=1", "/%6Detrics"])
async def test_a_refused_scrape_gets_the_reason_and_nothing_else(path: str) -> None:
    """In every spelling of the path."""
    registry = CollectorRegistry()
    Gauge("things", "Number of things", registry=registry).set(3)
    async with new_server(registry=registry, guard=FakeGuard(Refusal(403, "not you"))) as server:
        assert await ask(server, path) == (403, "not you")


@pytest.mark.parametrize(("status", "challenge"), [(401, "Bearer"), (403, None), (429, None), (500, None)])
async def test_only_401_has_a_www_authenticate_header(status: int, challenge: str | None) -> None:
    """As in RFC 9110."""
    async with (
        new_server(guard=FakeGuard(Refusal(status, ""))) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/metrics") as response,
    ):
        assert (response.status, response.headers.get("WWW-Authenticate")) == (status, challenge)


async def test_an_allowed_scrape_gets_the_metrics() -> None:
    """The guard gets the header as it was sent."""
    async with (
        new_server(guard=FakeGuard(Refusal(401, ""))) as server,
        aiohttp.ClientSession(headers={"Authorization": "Bearer good"}) as session,
        session.get(f"{server.url}/metrics") as response,
    ):
        assert response.status == 200


async def test_probes_need_no_token() -> None:
    """The kubelet has none."""
    async with new_server(guard=FakeGuard(Refusal(401, ""))) as server:
        assert await ask(server, "/healthz") == (200, "ok")
        assert await ask(server, "/readyz") == (200, "ok")


# --- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * (1024 * 1024) + b"\r\n\r\n",
        b"GET /healthz?" + b"a" * (1024 * 1024) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 10_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
    ids=["header", "line", "headers", "TLS", "nonsense"],
)
async def test_a_too_large_or_malformed_request_is_refused_and_the_server_goes_on(request_: bytes) -> None:
    """It is not read to its end."""
    async with new_server() as server:
        status = await status_of(server, request_)
        assert status is None or 400 <= status < 500
        assert await ask(server, "/healthz") == (200, "ok")


async def test_a_large_token_is_accepted() -> None:
    """Some identity providers put all of a user's groups into it."""
    async with new_server() as server:
        token = b"a" * 12 * 1024
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
        assert await status_of(server, request) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
async def test_methods_other_than_get_and_head_get_405(method: str, path: str) -> None:
    """On all of the product's paths."""
    async with new_server() as server:
        status = await status_of(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status is not None
        assert 400 <= status < 500


async def test_head_is_answered_without_a_body() -> None:
    """By the same rules as GET."""
    async with (
        new_server() as server,
        aiohttp.ClientSession() as session,
        session.head(f"{server.url}/healthz") as response,
    ):
        assert (response.status, await response.text()) == (200, "")


async def test_a_request_with_an_endless_body_is_answered_and_its_connection_closed() -> None:
    """The body is not read."""
    async with new_server() as server, connected(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "half"])
async def test_a_connection_without_a_complete_request_is_aborted(sent: bytes) -> None:
    """After 10 s by default."""
    async with new_server(connections=Connections(first=0.2)) as server, connected(server) as (reader, writer):
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_connection_without_a_complete_second_request_is_aborted() -> None:
    """After the timeout between two requests."""
    async with new_server(connections=Connections(following=0.2)) as server, connected(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.count(b"HTTP/1.1") == 1


async def test_a_client_that_does_not_read_its_response_is_aborted() -> None:
    """Otherwise it would occupy its connection for ever."""
    registry = CollectorRegistry()
    Gauge("things", "x" * 32 * 1024 * 1024, registry=registry)
    connections = Connections(following=0.2)
    async with new_server(registry=registry, connections=connections) as server, connected(server) as (_, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        while not connections.count:  # noqa: ASYNC110 - what has no event
            await asyncio.sleep(0.01)
        while connections.count:  # noqa: ASYNC110 - likewise; the limit of the test bounds it
            await asyncio.sleep(0.01)


async def test_a_client_with_all_connections_does_not_lock_out_others() -> None:
    """The newest connection is answered."""
    async with new_server(connections=Connections(most=5)) as server:
        held = [await asyncio.open_connection(*server.url.removeprefix("http://").split(":")) for _ in range(20)]
        assert await ask(server, "/healthz") == (200, "ok")
        for _, writer in held:
            writer.close()


# --- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True)],
        *[("", False), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("vmsim.example", False)],  # noqa: S104
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """An address that others may reach is none."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_valid_address_is_split_into_host_and_port(text: str, expected: tuple[str, int]) -> None:
    """An IPv6 host loses its brackets."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", "localhost:", "localhost:http", "a:65536", "a:-1", "a:²", "a: 1"]
)
def test_an_invalid_address_is_refused_with_an_example(text: str) -> None:
    """The message quotes the given text."""
    with pytest.raises(BindError) as caught:
        parse_address(text)

    assert repr(text) in str(caught.value)
    assert "127.0.0.1:8080" in str(caught.value)
