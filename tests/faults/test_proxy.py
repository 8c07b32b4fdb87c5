"""The proxy changes nothing without a fault, and each fault does what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.errors import (
    ConflictError,
    ExpiredError,
    ForbiddenError,
    KubeError,
    MalformedReplyError,
    ServerError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
)
from controller.kube.resources import PODS
from tests.faults import requests, streams
from tests.faults.proxy import Fault, Proxy
from tests.faults.wire import Answer, Upstream

LIST = b'{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"p","uid":"u","resourceVersion":"4"}}]}'
CONTENT_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
POD = b'{"metadata":{"name":"p","uid":"u","resourceVersion":"4"}}'


def event(number: int) -> bytes:
    """Return one line of a watch."""
    return b'{"type":"MODIFIED","object":{"metadata":{"name":"p","uid":"u","resourceVersion":"%d"}}}\n' % number


BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}\n'


@dataclass(slots=True)
class Server:
    """An API server with one pod, whose watches send three events and a bookmark and end."""

    requests: list[tuple[str, URL, bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        self.requests.append((request.method, request.rel_url, await request.read()))
        if "watch" not in request.query:
            body = LIST if request.method == "GET" and request.path.endswith("/pods") else POD
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
        response = web.StreamResponse()
        await response.prepare(request)
        for line in (event(6), event(7), BOOKMARK, event(8)):
            await response.write(line)
        return response

    @property
    def writes(self) -> int:
        """The number of writes that arrived."""
        return sum(method != "GET" for method, _, _ in self.requests)


@dataclass(slots=True)
class Wired:
    """A client, the proxy that it uses, and the server behind."""

    client: Client
    proxy: Proxy
    server: Server
    kills: list[None]

    async def patch(self) -> None:
        """Send a write."""
        await self.client.merge_patch(PODS, "p", {"metadata": {"labels": {}}}, namespace="ns")

    async def watch(self) -> list[str]:
        """Watch to the end; return the types of the events."""
        types: list[str] = []
        async for batch in self.client.watch(PODS, resource_version="5", life=60, namespace="ns"):
            types += [found.type for found in batch]
        return types


@pytest.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Wired]:
    """Start all three on loopback."""
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kills: list[None] = []
    async with (
        aiohttp.ClientSession() as session,
        Proxy.serve(
            Upstream(session, URL(f"http://127.0.0.1:{runner.addresses[0][1]}")), lambda: kills.append(None)
        ) as proxy,
        await Client.connect(credentials.find(str(proxy.kubeconfig(tmp_path / "kubeconfig", "ns")))) as client,
    ):
        yield Wired(client, proxy, server, kills)
    await runner.cleanup()


# --- without a fault -------------------------------------------------------------------------------------------


async def test_requests_pass_unchanged_and_are_recorded(wired: Wired) -> None:
    """Path, query and body arrive, and so does the reply."""
    page = await wired.client.list_page(PODS, namespace="ns", label_selector="a=b,!c", limit=7)
    await wired.patch()
    assert [pod.metadata.name for pod in page.items] == ["p"]
    [(_, listed, _), (method, patched, body)] = wired.server.requests
    assert (listed.path, dict(listed.query)) == (
        "/api/v1/namespaces/ns/pods",
        {"limit": "7", "labelSelector": "a=b,!c"},
    )
    assert (method, patched.path, body) == ("PATCH", "/api/v1/namespaces/ns/pods/p", b'{"metadata":{"labels":{}}}')
    assert [str(call) for call in wired.proxy.calls] == ["GET pods", "PATCH pods/p"]
    assert [str(call) for call in wired.proxy.writes] == ["PATCH pods/p"]
    recorded = wired.proxy.listed["pods"]
    assert (recorded.path, recorded.query) == (listed.path, listed.query)  # in any quoting


async def test_replies_retain_the_parameters_of_their_content_type(wired: Wired) -> None:
    """kubectl depends on them."""
    async with aiohttp.ClientSession() as session, session.get(f"{wired.proxy.url}/apis") as reply:
        assert reply.headers["Content-Type"] == CONTENT_TYPE


async def test_watches_pass_line_by_line(wired: Wired) -> None:
    """Bookmarks too, but they are not counted as events."""
    assert await wired.watch() == ["MODIFIED", "MODIFIED", "BOOKMARK", "MODIFIED"]
    assert wired.proxy.events == {"pods": 3}


# --- faults of writes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "arrived"),
    [
        ("dropped before the server", TransportError, 0),
        ("reply lost after commit", TransportError, 1),
        ("401", UnauthorizedError, 0),
        ("403", ForbiddenError, 0),
        ("409", ConflictError, 0),
        ("429, Retry-After 2", TooManyRequestsError, 0),
        ("500", ServerError, 0),
        ("503, an HTML page", ServerError, 0),
        ("504", ServerError, 0),
    ],
)
async def test_a_fault_strikes_its_write_and_no_other(
    wired: Wired, fault: str, error: type[KubeError], arrived: int
) -> None:
    """The second: the first and the third pass."""
    struck = wired.proxy.fault = requests.AtWrite(2, requests.REQUEST_FAULTS[fault])
    await wired.patch()
    before = wired.server.writes
    with pytest.raises(error):
        await wired.patch()
    assert wired.server.writes == before + arrived
    assert struck.struck
    await wired.patch()


async def test_a_fault_that_spares_dry_runs_strikes_the_write_after_them(wired: Wired) -> None:
    """Any other fault strikes the dry run."""

    async def create(*, dry_run: bool) -> None:
        body = {"metadata": {"name": "p"}}
        await wired.client.create(PODS, body, namespace="ns", server_deadline=5, dry_run=dry_run)

    wired.proxy.fault = requests.AtWrite(1, requests.drop, dry_runs=False)
    await create(dry_run=True)
    with pytest.raises(TransportError):
        await create(dry_run=False)
    wired.proxy.fault = requests.AtWrite(1, requests.drop)
    with pytest.raises(TransportError):
        await create(dry_run=True)


async def test_a_429_has_its_retry_after(wired: Wired) -> None:
    """The client reads it."""
    wired.proxy.fault = requests.AtWrite(1, requests.REQUEST_FAULTS["429, Retry-After 2"])
    with pytest.raises(TooManyRequestsError) as refused:
        await wired.patch()
    assert refused.value.retry_after == 2


@pytest.mark.parametrize(("crash", "arrived"), [("killed before commit", 0), ("killed after commit", 1)])
async def test_a_crash_kills_once_and_loses_the_reply(wired: Wired, crash: str, arrived: int) -> None:
    """Before or after the server has carried the write out."""
    wired.proxy.fault = requests.AtWrite(1, requests.CRASHES[crash])
    with pytest.raises(TransportError):
        await wired.patch()
    assert (len(wired.kills), wired.server.writes) == (1, arrived)


async def test_a_late_write_arrives_although_its_sender_has_given_up(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks at once."""
    monkeypatch.setattr(requests, "_LATE", 0.2)
    wired.proxy.fault = requests.AtWrite(1, requests.commit_late)
    with pytest.raises(TransportError):
        await wired.patch()
    assert wired.server.writes == 0
    async with asyncio.timeout(5):
        while not wired.server.writes:  # noqa: ASYNC110 - a server's list has no event
            await asyncio.sleep(0.02)


async def test_reads_and_events_do_not_count_as_writes(wired: Wired) -> None:
    """Events are written behind the work."""
    wired.proxy.fault = fault = requests.AtWrite(1, requests.drop)
    await wired.client.get(PODS, "p", namespace="ns")
    async with aiohttp.ClientSession() as session:
        await session.post(f"{wired.proxy.url}/apis/events.k8s.io/v1/namespaces/ns/events", data=b"{}")
    assert not fault.struck


# --- faults of watches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "types"),
    [
        (streams.Closed, ["MODIFIED"]),
        (streams.Duplicates, ["MODIFIED", "MODIFIED", "MODIFIED", "BOOKMARK", "BOOKMARK", "MODIFIED", "MODIFIED"]),
        (streams.NoBookmarks, ["MODIFIED"]),
    ],
)
async def test_a_watch_ends_or_repeats_events(wired: Wired, fault: type[streams.AtEvent], types: list[str]) -> None:
    """From its second event on."""
    wired.proxy.fault = fault("pods", 2)
    assert await wired.watch() == types


async def test_later_watches_have_no_bookmarks_either(wired: Wired) -> None:
    """For good."""
    wired.proxy.fault = streams.NoBookmarks("pods", 1)
    await wired.watch()
    assert await wired.watch() == ["MODIFIED", "MODIFIED", "MODIFIED"]


@pytest.mark.parametrize(
    ("fault", "error"), [(streams.CutInLine, TransportError), (streams.Garbage, MalformedReplyError)]
)
async def test_a_watch_breaks_within_an_event_or_with_garbage(
    wired: Wired, fault: type[streams.AtEvent], error: type[KubeError]
) -> None:
    """Each is an error of the client."""
    wired.proxy.fault = fault("pods", 2)
    with pytest.raises(error):
        await wired.watch()


async def test_expiry_as_a_status_refuses_only_the_next_watch(wired: Wired) -> None:
    """The open one ends."""
    wired.proxy.fault = streams.ExpiredStatus("pods", 2)
    assert await wired.watch() == ["MODIFIED"]
    with pytest.raises(ExpiredError):
        await wired.watch()
    assert len(await wired.watch()) == 4


async def test_expiry_as_an_event_comes_in_place_of_the_event(wired: Wired) -> None:
    """The watch ends with it."""
    wired.proxy.fault = streams.ExpiredEvent("pods", 2)
    assert await wired.watch() == ["MODIFIED", "ERROR"]


async def test_a_fault_of_one_resource_does_not_strike_another(wired: Wired) -> None:
    """A watch of pods is not struck by a fault of VMs."""
    wired.proxy.fault = fault = streams.Closed("virtualmachines", 1)
    assert len(await wired.watch()) == 4
    assert not fault.struck


async def test_a_continue_token_expires_but_an_unpaged_list_passes(wired: Wired) -> None:
    """The first page is small, the next is refused."""
    wired.proxy.fault = streams.ExpiredPage("pods", 1)
    await wired.watch()
    await wired.client.list_page(PODS, namespace="ns", limit=500)
    assert wired.server.requests[-1][1].query["limit"] == "1"
    with pytest.raises(ExpiredError):
        await wired.client.list_page(PODS, namespace="ns", limit=500, continue_token="token")  # noqa: S106 - of a list
    await wired.client.list_page(PODS, namespace="ns", limit=0)
    assert wired.server.requests[-1][1].query["limit"] == "0"


async def test_an_old_list_is_sent_once(wired: Wired) -> None:
    """The next list is current."""
    fault = streams.TimeTravel("pods", 1)
    fault.remember(Answer(200, b'{"metadata":{"resourceVersion":"1"},"items":[]}'))
    wired.proxy.fault = fault
    await wired.watch()
    old = await wired.client.list_page(PODS, namespace="ns", limit=500)
    new = await wired.client.list_page(PODS, namespace="ns", limit=500)
    assert (old.resource_version, new.resource_version) == ("1", "5")


@pytest.mark.parametrize("fault", [streams.Silence("pods", 1), requests.AtWrite(1, requests.hang)])
async def test_silence_lasts_until_the_client_gives_up(wired: Wired, fault: Fault) -> None:
    """The connection stays open without data."""
    wired.proxy.fault = fault
    request: Coroutine[Any, Any, object] = wired.watch() if isinstance(fault, streams.Silence) else wired.patch()
    work = asyncio.create_task(request)
    done, _ = await asyncio.wait([work], timeout=0.3)
    assert (done, fault.struck) == (set(), True)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
