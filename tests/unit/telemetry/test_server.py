"""The server answers probes and scrapes, and says why it cannot listen."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from controller.kube import errors
from controller.telemetry.address import BindError, parse_address
from controller.telemetry.health import Health, LoopMonitor
from controller.telemetry.server import Server


async def reachable() -> None:
    """Be an API server that is there."""


async def away() -> None:
    """Be an API server that is not."""
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
) -> Server:
    """Return a server of a process in a given state. Needs a running loop."""
    subject = Health(LoopMonitor(), reach_api)
    cache = FakeSource()
    if synced:
        cache.answered.set()
        cache.synced.set()
    task: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0 if not alive else 3600), name="reflector")
    subject.watch([task], [("pods", cache)])
    return Server(address, registry or CollectorRegistry(), subject)


async def ask(server: Server, path: str) -> tuple[int, str]:
    """Return status and text of an answer."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}{path}") as response:
        return response.status, await response.text()


async def test_a_process_that_works_is_healthy_and_ready() -> None:
    """Both probes say ok."""
    async with new_server() as server:
        assert await ask(server, "/healthz") == (200, "ok")
        assert await ask(server, "/readyz") == (200, "ok")


async def test_a_dead_task_fails_the_liveness_probe() -> None:
    """503, and why."""
    async with new_server(alive=False) as server:
        await asyncio.sleep(0)
        assert await ask(server, "/healthz") == (503, "task reflector has ended")


async def test_an_outage_of_the_api_server_fails_readiness_only() -> None:
    """No replica is restarted for it."""
    async with new_server(reach_api=away) as server:
        assert await ask(server, "/readyz") == (503, "API server: connection refused")
        assert await ask(server, "/healthz") == (200, "ok")


async def test_every_problem_has_its_line() -> None:
    """Unfilled caches and the API server together."""
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


async def test_metrics_are_served_as_the_request_asks() -> None:
    """OpenMetrics, compressed."""
    wish = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
    async with (
        new_server() as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{server.url}/metrics", headers=wish) as response,
    ):
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert gzip.decompress(await response.read()) == b"# EOF\n"


async def test_nothing_else_is_served() -> None:
    """404 for any other path."""
    async with new_server() as server:
        assert (await ask(server, "/"))[0] == 404


async def test_port_0_takes_a_free_port_and_tells_it() -> None:
    """Two servers get two."""
    async with new_server() as one, new_server() as two:
        assert one.url.startswith("http://127.0.0.1:")
        assert one.url != two.url
        assert not one.url.endswith(":0")


async def test_the_port_is_free_after_the_end() -> None:
    """A restart in the same address works at once."""
    async with new_server() as server:
        address = server.url.removeprefix("http://")
    async with new_server(address) as again:
        assert (await ask(again, "/healthz"))[0] == 200


async def test_a_port_in_use_is_named_with_the_flag_that_changes_it() -> None:
    """A person knows what to do."""
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
async def test_an_address_that_is_not_ours_is_a_bind_error(address: str) -> None:
    """Whatever the resolver or the kernel says."""
    with pytest.raises(BindError, match="--metrics-bind-address"):
        async with new_server(address):
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_good_addresses_are_split(text: str, expected: tuple[str, int]) -> None:
    """Host and port; an IPv6 host loses its brackets."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", "localhost:", "localhost:http", "a:65536", "a:-1", "a:²", "a: 1"]
)
def test_bad_addresses_are_refused_with_an_example(text: str) -> None:
    """The message quotes what was given."""
    with pytest.raises(BindError) as caught:
        parse_address(text)

    assert repr(text) in str(caught.value)
    assert "127.0.0.1:8080" in str(caught.value)
