"""Requests carry what they must, and every reply is judged before it is believed."""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controller import __version__
from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS
from controller.kube.transport import Request
from tests.unit.kube.builders import ApiServer, hang, hang_up, kubeconfig, pod_body, reply, status_body, stream

HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


# --- what is sent ----------------------------------------------------------------------------------------


async def test_get_reads_one_object(api: ApiServer, client: Client) -> None:
    """The typed part of it comes back; fields that nobody reads are dropped."""
    api.handler = reply(pod_body("a", 7))

    pod = await client.get(PODS, "a", namespace="default")

    assert isinstance(pod, Pod)
    assert (pod.metadata.key, pod.metadata.resource_version, pod.spec.node_name) == ("default/a", "7", "n1")
    [seen] = api.seen
    assert (seen.method, seen.path, seen.query) == ("GET", "/api/v1/namespaces/default/pods/a", {})


async def test_every_request_is_reported_with_what_became_of_it(api: ApiServer, config: Path) -> None:
    """Its code, or that there was no answer; a watch counts as one request."""
    heard: list[tuple[str, str, str]] = []
    host = api.url.removeprefix("http://")
    async with await Client.connect(Source(str(config)), answered=lambda *request: heard.append(request)) as client:
        api.handler = reply(pod_body("a", 7))
        await client.get(PODS, "a", namespace="default")
        api.handler = reply(status_body(409, "AlreadyExists"), status=409)
        with pytest.raises(errors.AlreadyExistsError):
            await client.create(PODS, {}, namespace="default", server_deadline=1)
        api.handler = hang_up
        with pytest.raises(errors.TransportError):
            await client.ready()
        api.handler = stream()
        async for _ in client.watch(PODS, resource_version="1", life=1):
            pass

    assert heard == [("GET", host, "200"), ("POST", host, "409"), ("GET", host, "<error>"), ("GET", host, "200")]


async def test_every_request_says_who_and_what(secure: ApiServer, tmp_path: Path) -> None:
    """Token, user agent and the wish for JSON are on each."""
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "config", secure.url)))) as client:
        await client.ready()

    [seen] = secure.seen
    assert seen.path == "/readyz"
    assert seen.headers["Authorization"] == "Bearer first"
    assert seen.headers["User-Agent"] == f"vmsim/{__version__}"
    assert seen.headers["Accept"] == "application/json"


async def test_custom_and_cluster_wide_resources_have_their_paths(api: ApiServer, client: Client) -> None:
    """A group goes under /apis; a cluster's object has no namespace."""
    api.handler = reply({"metadata": {"name": "a"}})

    await client.get(VIRTUAL_MACHINES, "a", namespace="default")
    await client.get(NODES, "n1")

    assert [seen.path for seen in api.seen] == [
        f"/apis/{names.GROUP}/{names.VERSION}/namespaces/default/virtualmachines/a",
        "/api/v1/nodes/n1",
    ]


async def test_list_page_asks_for_a_page_of_the_newest_state(api: ApiServer, client: Client) -> None:
    """Limit, token and selector are sent; no resource version, so that it is a quorum read."""
    api.handler = reply(
        {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [pod_body("a"), pod_body("b")]}
    )

    token = "x+/=&"  # noqa: S105 - where the next page is

    page = await client.list_page(
        PODS, namespace="default", label_selector="a in (b,c),d!=e&f", limit=500, continue_token=token
    )

    assert ([pod.metadata.name for pod in page.items], page.resource_version, page.continue_token) == (
        ["a", "b"],
        "9",
        "more",
    )
    [seen] = api.seen
    assert seen.path == "/api/v1/namespaces/default/pods"
    assert seen.query == {"limit": "500", "labelSelector": "a in (b,c),d!=e&f", "continue": token}


async def test_list_page_leaves_out_what_is_empty(api: ApiServer, client: Client) -> None:
    """No selector, no token, all namespaces."""
    api.handler = reply({"metadata": {"resourceVersion": "9"}, "items": []})

    page = await client.list_page(PODS, limit=0)

    assert (page.items, page.continue_token) == ([], "")
    [seen] = api.seen
    assert seen.path == "/api/v1/pods"
    assert seen.query == {"limit": "0"}


async def test_create_names_its_manager_and_the_server_s_deadline(api: ApiServer, client: Client) -> None:
    """So the server gives up no later than we do."""
    api.handler = reply(pod_body("a", 3), status=201)
    body = {"metadata": {"name": "a"}}

    created = await client.create(PODS, body, namespace="default", server_deadline=7)

    assert created.metadata.resource_version == "3"
    [seen] = api.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/namespaces/default/pods")
    assert seen.query == {"timeout": "7s", "fieldManager": "vmsim-controller"}
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.body == body


async def test_a_dry_run_is_said_to_the_server(api: ApiServer, client: Client) -> None:
    """So that nothing is left behind."""
    api.handler = reply(pod_body("a"), status=201)
    await client.create(PODS, {"metadata": {"name": "a"}}, namespace="default", server_deadline=7, dry_run=True)
    [seen] = api.seen
    assert seen.query == {"timeout": "7s", "fieldManager": "vmsim-controller", "dryRun": "All"}


async def test_each_tool_writes_under_a_name_of_its_own(api: ApiServer, tmp_path: Path) -> None:
    """Creates and patches alike."""
    api.handler = reply(pod_body("a"))
    source = Source(str(kubeconfig(tmp_path / "another", api.url)))
    async with await Client.connect(source, manager="vmsim-load") as tool:
        await tool.create(PODS, {}, namespace="default", server_deadline=7)
        await tool.merge_patch(PODS, "a", {}, namespace="default")
    assert [seen.query["fieldManager"] for seen in api.seen] == ["vmsim-load", "vmsim-load"]


async def test_merge_patch_names_its_type_and_carries_its_guards(api: ApiServer, client: Client) -> None:
    """UID and resource version go as they were given, nulls included; the subresource is part of the path."""
    api.handler = reply(pod_body("a", 4))
    body = {"metadata": {"uid": "u", "resourceVersion": "3"}, "status": {"phase": "Running", "nodeName": None}}

    patched = await client.merge_patch(VIRTUAL_MACHINES, "a", body, namespace="default", subresource="status")

    assert patched.metadata.resource_version == "4"
    [seen] = api.seen
    assert seen.method == "PATCH"
    assert seen.path == f"/apis/{names.GROUP}/{names.VERSION}/namespaces/default/virtualmachines/a/status"
    assert seen.query == {"fieldManager": "vmsim-controller"}
    assert seen.headers["Content-Type"] == "application/merge-patch+json"
    assert seen.body == body


async def test_apply_names_its_type_and_takes_over_what_others_have_applied(api: ApiServer, client: Client) -> None:
    """The API server merges, and notes us as the manager of every field that is sent."""
    api.handler = reply(pod_body("a", 4))
    body = {"metadata": {"name": "a"}, "spec": {"unschedulable": True}}

    applied = await client.apply(NODES, "a", body)

    assert applied.metadata.resource_version == "4"
    [seen] = api.seen
    assert (seen.method, seen.path) == ("PATCH", "/api/v1/nodes/a")
    assert seen.query == {"fieldManager": "vmsim-controller", "force": "true"}
    assert seen.headers["Content-Type"] == "application/apply-patch+yaml"
    assert seen.body == body


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"uid": "u"}, {"preconditions": {"uid": "u"}}),
        (
            {"uid": "u", "resource_version": "3", "grace_seconds": 0},
            {"preconditions": {"uid": "u", "resourceVersion": "3"}, "gracePeriodSeconds": 0},
        ),
    ],
    ids=["by UID", "by UID and version, at once"],
)
async def test_delete_carries_its_preconditions(
    api: ApiServer, client: Client, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Only the object that was meant is deleted; a grace of 0 is sent, none is left out."""
    api.handler = reply(pod_body("a", 12))

    version = await client.delete(PODS, "a", namespace="default", **arguments)

    assert version == "12"
    [seen] = api.seen
    assert (seen.method, seen.path) == ("DELETE", "/api/v1/namespaces/default/pods/a")
    assert seen.body == {"apiVersion": "v1", "kind": "DeleteOptions"} | expected


async def test_delete_of_a_final_object_is_answered_by_a_status(api: ApiServer, client: Client) -> None:
    """It names no version; that is no failure."""
    api.handler = reply({"kind": "Status", "metadata": {}, "status": "Success", "details": {"name": "a", "uid": "u"}})

    assert await client.delete(PODS, "a", namespace="default", uid="u") == ""


# --- what comes back -------------------------------------------------------------------------------------

STATUSES: list[tuple[int, str, type[errors.StatusError], bool]] = [
    (302, "", errors.StatusError, False),
    (400, "BadRequest", errors.InvalidError, False),
    (401, "Unauthorized", errors.UnauthorizedError, False),
    (403, "Forbidden", errors.ForbiddenError, False),
    (404, "NotFound", errors.NotFoundError, False),
    (405, "MethodNotAllowed", errors.StatusError, False),
    (409, "AlreadyExists", errors.AlreadyExistsError, False),
    (409, "Conflict", errors.ConflictError, False),
    (410, "Expired", errors.ExpiredError, False),
    (422, "Invalid", errors.InvalidError, False),
    (429, "TooManyRequests", errors.TooManyRequestsError, False),
    (500, "InternalError", errors.ServerError, True),
    (502, "", errors.ServerError, True),
    (503, "ServiceUnavailable", errors.ServerError, True),
    (504, "Timeout", errors.ServerError, True),
]


@pytest.mark.parametrize(("code", "reason", "kind", "unknown"), STATUSES, ids=[f"{s[0]} {s[1]}" for s in STATUSES])
async def test_every_status_has_its_error(
    api: ApiServer, client: Client, code: int, reason: str, kind: type[errors.StatusError], *, unknown: bool
) -> None:
    """Exactly that class, with code, reason and message; it says whether a write may have happened."""
    api.handler = reply(status_body(code, reason, "so it is"), status=code)

    with pytest.raises(errors.KubeError) as caught:
        await client.create(PODS, {}, namespace="default", server_deadline=5)

    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.message, error.retry_after) == (code, reason, "so it is", None)
    assert "so it is" in str(error)
    assert error.outcome_unknown is unknown


async def test_a_redirect_is_not_followed(api: ApiServer, client: Client) -> None:
    """The token goes nowhere else."""
    api.handler = reply(b"", status=302, headers={"Location": f"{api.url}/elsewhere"})

    with pytest.raises(errors.StatusError):
        await client.get(PODS, "a", namespace="default")

    assert [seen.path for seen in api.seen] == ["/api/v1/namespaces/default/pods/a"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (HTML, HTML.decode()),
        (b"", "no message"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"null", "null"),
        (b"[1]", "[1]"),
        (b'{"code": "x"}', '{"code": "x"}'),
    ],
    ids=["HTML", "empty", "binary", "null", "array", "wrong types"],
)
async def test_an_error_whose_body_is_no_status_is_known_by_its_code(
    api: ApiServer, client: Client, body: bytes, message: str
) -> None:
    """A proxy's page is quoted; it never crashes the client."""
    api.handler = reply(body, status=502)

    with pytest.raises(errors.ServerError) as caught:
        await client.get(PODS, "a", namespace="default")

    assert (caught.value.code, caught.value.reason, caught.value.message) == (502, "", message)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("1.5", None), ("²", None)]
)
async def test_retry_after_is_read_where_it_is_a_number(
    api: ApiServer, client: Client, header: str, seconds: float | None
) -> None:
    """Anything else is as if it were not there."""
    api.handler = reply(status_body(429, "TooManyRequests"), status=429, headers={"Retry-After": header})

    with pytest.raises(errors.TooManyRequestsError) as caught:
        await client.get(PODS, "a", namespace="default")

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [HTML, b"", b"null", b"[]", b"7", b'{"metadata": 7}', b'{"kind": "Pod"}', b"\xff", b'{"metadata": {"name": "a"}'],
    ids=["HTML", "empty", "null", "array", "number", "wrong type", "no metadata", "binary", "cut off"],
)
async def test_a_success_with_another_body_is_a_malformed_reply(api: ApiServer, client: Client, body: bytes) -> None:
    """A 200 is not believed for its status; whether a write happened is then unknown."""
    api.handler = reply(body)

    for request in (
        client.get(PODS, "a", namespace="default"),
        client.list_page(PODS, limit=500),
        client.create(PODS, {}, namespace="default", server_deadline=5),
        client.merge_patch(PODS, "a", {}, namespace="default"),
        client.delete(PODS, "a", namespace="default", uid="u"),
    ):
        with pytest.raises(errors.MalformedReplyError) as caught:
            await request
        assert caught.value.outcome_unknown


# --- when nothing comes back -----------------------------------------------------------------------------


async def test_a_connection_that_is_cut_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """The write may have happened."""
    api.handler = hang_up

    with pytest.raises(errors.TransportError) as caught:
        await client.create(PODS, {}, namespace="default", server_deadline=5)

    assert caught.value.outcome_unknown
    assert "POST /api/v1/namespaces/default/pods" in str(caught.value)


async def test_a_body_that_is_cut_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """Half a reply is none."""

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"metadata": {')
        assert request.transport is not None
        request.transport.close()
        return response

    api.handler = cut

    with pytest.raises(errors.TransportError) as caught:
        await client.get(PODS, "a", namespace="default")
    assert caught.value.sent


async def test_a_refused_connection_is_a_transport_error(tmp_path: Path) -> None:
    """The message says whom we tried to reach, and nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    source = Source(str(kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")))

    async with await Client.connect(source) as client:
        with pytest.raises(errors.TransportError, match=str(port)) as caught:
            await client.get(PODS, "a", namespace="default")
    assert not caught.value.sent


@pytest.mark.parametrize("late", [hang, stream(b'{"metadata":', 3600.0)], ids=["no reply", "half a reply"])
async def test_a_request_ends_at_its_deadline(api: ApiServer, client: Client, late: Any) -> None:
    """A server that hangs, before its reply or in it, is waited for no longer."""
    api.handler = late
    loop = asyncio.get_running_loop()
    before = loop.time()

    with pytest.raises(errors.TransportError, match=r"GET /late: \S"):
        await client._send(Request("GET", "/late"), deadline=0.1)

    assert loop.time() - before < 5
    await asyncio.wait_for(api.quiet.wait(), 5)


async def test_a_client_is_of_use_after_a_failure(api: ApiServer, client: Client) -> None:
    """Nothing of a broken request stays in the way of the next."""
    for failure in (hang_up, reply(HTML, status=502), reply(HTML)):
        api.handler = failure
        with pytest.raises(errors.KubeError):
            await client.get(PODS, "a", namespace="default")

    api.handler = reply(pod_body("a"))
    assert (await client.get(PODS, "a", namespace="default")).metadata.name == "a"


# --- what is never shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_a_proxys_password_is_not_in_what_is_said_of_its_refusal(tmp_path: Path, line: str) -> None:
    """Nor in its traceback; status, words and the proxy are."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = json.loads(kubeconfig(tmp_path / "config", "https://far.example:6443").read_text())
        config["clusters"][0]["cluster"]["proxy-url"] = f"http://u:secret@{place}"
        (tmp_path / "config").write_text(json.dumps(config))
        async with await Client.connect(Source(str(tmp_path / "config"))) as client:
            for request in (client.ready(), anext(client.watch(PODS, resource_version="1", life=300))):
                with pytest.raises(errors.TransportError, match=line) as caught:
                    await request
                assert f"through the proxy http://{place} of the kubeconfig's proxy-url" in str(caught.value)
                assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_servers_password_is_not_in_what_is_counted_or_said(tmp_path: Path) -> None:
    """Whatever becomes of the request."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    heard: list[tuple[str, str, str]] = []
    for url in (f"http://u:secret@127.0.0.1:{port}", "http://u:secret@:1"):
        source = Source(str(kubeconfig(tmp_path / "config", url, {"as": "jane"})))
        async with await Client.connect(source, answered=lambda *request: heard.append(request)) as client:
            with pytest.raises(errors.TransportError) as caught:
                await client.ready()
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert heard == [("GET", f"127.0.0.1:{port}", "<error>"), ("GET", ":1", "<error>")]
