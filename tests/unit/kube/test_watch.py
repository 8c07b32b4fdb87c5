"""A watch yields whole events, and reports how it ended."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from controller.kube import codec, errors
from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.kube.meta import ObjectOnly
from controller.kube.resources import PODS
from controller.kube.transport import _lines
from controller.process import allow_many_files
from tests.unit.kube.builders import ApiServer, hang, hang_up, kubeconfig, line, reply, status_body, stream


def watch(client: Client, *, idle_limit: float = 5.0) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
    """Watch pods from version 5."""
    return client.watch(PODS, resource_version="5", life=432.9, namespace="default", idle_limit=idle_limit)


class Reader:
    """Reads a watch to its end and retains its batches, even if the end is an error."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def read(self, events: AsyncGenerator[list[codec.WatchEnvelope], None]) -> list[list[str]]:
        """Return the batches, each event as `TYPE name`."""
        async for batch in events:
            self.batches.append(
                [f"{event.type} {codec.decode(event.object, ObjectOnly).metadata.name}" for event in batch]
            )
        return self.batches

    @property
    def events(self) -> list[str]:
        """All events in one list: how they are batched is the network's business."""
        return [event for batch in self.batches for event in batch]


async def test_a_watch_requests_bookmarks_a_version_and_a_timeout(api: ApiServer, client: Client) -> None:
    """In the query, with the selector if there is one."""
    api.handler = stream()
    await Reader().read(watch(client))
    await Reader().read(client.watch(PODS, resource_version="6", life=300, label_selector="a=b"))

    assert api.seen[0].path == "/api/v1/namespaces/default/pods"
    assert api.seen[0].query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "5",
        "timeoutSeconds": "432",
    }
    assert api.seen[1].path == "/api/v1/pods"
    assert api.seen[1].query["labelSelector"] == "a=b"


async def test_many_lines_in_one_chunk_are_one_batch(api: ApiServer, client: Client) -> None:
    """In their order, after the empty one that says that the watch was accepted."""
    api.handler = stream(line("ADDED", "a") + line("MODIFIED", "a") + line("DELETED", "b"))

    assert await Reader().read(watch(client)) == [[], ["ADDED a", "MODIFIED a", "DELETED b"]]


async def test_an_accepted_watch_yields_an_empty_chunk_first(api: ApiServer, client: Client) -> None:
    """So its reader knows at once that changes will arrive."""
    api.handler = stream()
    assert await Reader().read(watch(client)) == [[]]


@pytest.mark.parametrize("at", [1, 20, -1], ids=["at its start", "within", "before its newline"])
async def test_a_line_may_be_split_over_chunks(api: ApiServer, client: Client, at: int) -> None:
    """Wherever it is split, it is one event."""
    first, second = line("ADDED", "a"), line("ADDED", "b")
    api.handler = stream(first + second[:at], second[at:] + first[:at], first[at:])
    reader = Reader()
    await reader.read(watch(client))

    assert reader.events == ["ADDED a", "ADDED b", "ADDED a"]


async def test_a_line_may_come_byte_by_byte(api: ApiServer, client: Client) -> None:
    """A slow server is no error."""
    text = line("ADDED", "a")
    api.handler = stream(text[:-30], *[bytes([byte]) for byte in text[-30:]])
    reader = Reader()
    await reader.read(watch(client))

    assert reader.events == ["ADDED a"]


async def test_blank_lines_are_ignored(api: ApiServer, client: Client) -> None:
    """They are no events, and do not end the watch."""
    api.handler = stream(b"\n", line("ADDED", "a") + b"\n\n", b"\n\n", line("ADDED", "b"))
    reader = Reader()
    await reader.read(watch(client))

    assert reader.events == ["ADDED a", "ADDED b"]
    assert [] not in reader.batches[1:]


class Chunks(aiohttp.StreamReader):
    """A stream whose reads are exactly these, empty ones included."""

    def __init__(self, *chunks: bytes) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(BaseProtocol(loop), 2**16, loop=loop)
        self._chunks = list(chunks)

    def at_eof(self) -> bool:
        """Whether every chunk was read."""
        return not self._chunks

    async def readany(self) -> bytes:
        """Return the next chunk."""
        return self._chunks.pop(0)


async def test_an_empty_chunk_in_the_middle_ends_nothing() -> None:
    """Only the end of the stream does."""
    found = [lines async for lines in _lines(Chunks(b"a\nb", b"", b"c\n", b"", b"d\n"))]

    assert found == [[b"a"], [b"bc"], [b"d"]]


async def test_a_line_without_end_is_refused() -> None:
    """A server that never sends a newline does not exhaust the memory."""
    piece = b"x" * (1024 * 1024)

    with pytest.raises(errors.MalformedReplyError, match="longer than"):
        async for _ in _lines(Chunks(*[piece] * 9)):
            pass


async def test_the_size_limit_is_for_one_line_not_for_the_stream() -> None:
    """Many long lines are fine."""
    piece = b"x" * (1024 * 1024)

    found = [len(lines) async for lines in _lines(Chunks(*[piece + b"\n" + piece] * 9, b"\n"))]

    assert sum(found) == 10


async def test_an_event_cut_at_the_end_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """The events before it are delivered; half an event is not."""
    api.handler = stream(line("ADDED", "a") + line("ADDED", "b")[:-9])
    reader = Reader()

    with pytest.raises(errors.TransportError, match="middle of an event"):
        await reader.read(watch(client))

    assert reader.events == ["ADDED a"]


async def test_a_connection_cut_between_events_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """It differs from a normal end."""

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", "a"))
        assert request.transport is not None
        request.transport.close()
        await asyncio.Event().wait()
        return response

    api.handler = cut
    reader = Reader()

    with pytest.raises(errors.TransportError):
        await reader.read(watch(client))

    assert reader.events == ["ADDED a"]


@pytest.mark.parametrize("silent", [hang, stream(line("ADDED", "a"), 3600.0)], ids=["from the start", "after an event"])
async def test_a_silent_connection_is_a_transport_error_after_the_idle_limit(
    api: ApiServer, client: Client, silent: object
) -> None:
    """So half-open sockets are detected."""
    api.handler = silent  # type: ignore[assignment]
    loop = asyncio.get_running_loop()
    before = loop.time()

    with pytest.raises(errors.TransportError):
        await Reader().read(watch(client, idle_limit=0.2))

    assert 0.19 <= loop.time() - before < 5


async def test_a_watch_with_traffic_may_outlive_the_idle_limit(api: ApiServer, client: Client) -> None:
    """The limit is on silence, not on the duration."""
    api.handler = stream(*[part for n in range(5) for part in (line("ADDED", f"p{n}"), 0.12)])
    reader = Reader()
    await reader.read(watch(client, idle_limit=0.5))

    assert len(reader.events) == 5


@pytest.mark.parametrize(
    "garbage",
    [b"not json\n", b"<html>\n", b"null\n", b"7\n", b'{"type": "ADDED"}\n', b'{"object": {}}\n', b"\xff\xff\n"],
    ids=["text", "HTML", "null", "number", "no object", "no type", "binary"],
)
async def test_a_line_that_is_no_event_is_a_malformed_reply(api: ApiServer, client: Client, garbage: bytes) -> None:
    """The events of earlier chunks are delivered."""
    api.handler = stream(line("ADDED", "a"), garbage, line("ADDED", "b"))
    reader = Reader()

    with pytest.raises(errors.MalformedReplyError):
        await reader.read(watch(client))

    assert reader.events in ([], ["ADDED a"])  # two chunks may arrive as one


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, errors.UnauthorizedError),
        (403, errors.ForbiddenError),
        (410, errors.ExpiredError),
        (429, errors.TooManyRequestsError),
        (500, errors.ServerError),
    ],
)
async def test_a_refused_watch_raises_its_status(
    api: ApiServer, client: Client, code: int, kind: type[errors.StatusError]
) -> None:
    """An HTML body is no event."""
    api.handler = reply(status_body(code, "So"), status=code, headers={"Retry-After": "3"})
    with pytest.raises(kind) as caught:
        await Reader().read(watch(client))
    assert caught.value.retry_after == 3

    api.handler = reply(b"<html>\n</html>\n", status=code)
    with pytest.raises(kind):
        await Reader().read(watch(client))


async def test_a_watch_that_is_cut_before_its_reply_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """So is a refused connection."""
    api.handler = hang_up

    with pytest.raises(errors.TransportError, match="watch /api/v1/namespaces/default/pods"):
        await Reader().read(watch(client))


async def test_a_refused_connection_is_a_transport_error(tmp_path: Path) -> None:
    """A server that is away is not a watch that ended."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async with await Client.connect(Source(str(kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")))) as client:
        with pytest.raises(errors.TransportError):
            await Reader().read(watch(client))


async def test_closing_the_generator_closes_the_connection(api: ApiServer, client: Client) -> None:
    """The server sees it; other requests still work."""
    api.handler = stream(line("ADDED", "a"), 3600.0)
    events = watch(client)
    await anext(events)
    assert api.in_flight == 1

    await events.aclose()

    await asyncio.wait_for(api.quiet.wait(), 5)
    api.handler = reply({})
    await client.ready()


async def test_requests_go_through_beside_the_watches_of_200_namespaces(api: ApiServer, client: Client) -> None:
    """Three watches each, and one of nodes: they take no connection from requests, and there is no bound on them."""
    allow_many_files()
    ended = asyncio.Event()
    stream_or_list = reply({"metadata": {"resourceVersion": "5"}, "items": []})

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return await stream_or_list(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await ended.wait()
        return response

    api.handler = answer
    watches = [client.watch(PODS, resource_version="5", life=300, namespace=f"n-{n}") for n in range(601)]
    accepted = await asyncio.wait_for(asyncio.gather(*(anext(events) for events in watches)), 15)
    page = await asyncio.wait_for(client.list_page(PODS, limit=500), 5)

    assert (len(accepted), page.items) == (601, [])
    ended.set()
    await asyncio.gather(*(events.aclose() for events in watches))
