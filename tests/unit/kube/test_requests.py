"""Requests: their method, path, query and headers; and how each reply or failure becomes a value or an error."""

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


# --- requests --------------------------------------------------------------------------------------------


async def test_get_returns_the_typed_object(api: ApiServer, client: Client) -> None:
    """Fields without a type are dropped."""
    api.handler = reply(pod_body("a", 7))

    pod = await client.get(PODS, "a", namespace="default")

    assert isinstance(pod, Pod)
    assert (pod.metadata.key, pod.metadata.resource_version, pod.spec.node_name) == ("default/a", "7", "n1")
    [seen] = api.seen
    assert (seen.method, seen.path, seen.query) == ("GET", "/api/v1/namespaces/default/pods/a", {})


async def test_every_request_is_reported_with_its_result(api: ApiServer, config: Path) -> None:
    """The status code, or `<error>` without an answer; a watch counts as one request."""
    reported: list[tuple[str, str, str]] = []
    host = api.url.removeprefix("http://")
    async with await Client.connect(Source(str(config)), answered=lambda *request: reported.append(request)) as client:
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

    assert reported == [("GET", host, "200"), ("POST", host, "409"), ("GET", host, "<error>"), ("GET", host, "200")]


async def test_every_request_has_the_token_the_user_agent_and_accepts_json(secure: ApiServer, tmp_path: Path) -> None:
    """Over TLS."""
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "config", secure.url)))) as client:
        await client.ready()

    [seen] = secure.seen
    assert seen.path == "/readyz"
    assert seen.headers["Authorization"] == "Bearer first"
    assert seen.headers["User-Agent"] == f"vmsim/{__version__}"
    assert seen.headers["Accept"] == "application/json"


async def test_custom_and_cluster_wide_resources_have_their_paths(api: ApiServer, client: Client) -> None:
    """A group is under /apis; a cluster-scoped object has no namespace."""
    api.handler = reply({"metadata": {"name": "a"}})

    await client.get(VIRTUAL_MACHINES, "a", namespace="default")
    await client.get(NODES, "n1")

    assert [seen.path for seen in api.seen] == [
        f"/apis/{names.GROUP}/{names.VERSION}/namespaces/default/virtualmachines/a",
        "/api/v1/nodes/n1",
    ]


async def test_list_page_sends_limit_selector_and_token_but_no_version(api: ApiServer, client: Client) -> None:
    """Without a resource version it is a quorum read."""
    api.handler = reply(
        {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [pod_body("a"), pod_body("b")]}
    )

    token = "x+/=&"  # noqa: S105 - a continue token

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


async def test_list_page_omits_empty_parameters(api: ApiServer, client: Client) -> None:
    """No selector, no token, all namespaces."""
    api.handler = reply({"metadata": {"resourceVersion": "9"}, "items": []})

    page = await client.list_page(PODS, limit=0)

    assert (page.items, page.continue_token) == ([], "")
    [seen] = api.seen
    assert seen.path == "/api/v1/pods"
    assert seen.query == {"limit": "0"}


async def test_create_sends_its_field_manager_and_the_servers_deadline(api: ApiServer, client: Client) -> None:
    """So the server gives up no later than the client."""
    api.handler = reply(pod_body("a", 3), status=201)
    body = {"metadata": {"name": "a"}}

    created = await client.create(PODS, body, namespace="default", server_deadline=7)

    assert created.metadata.resource_version == "3"
    [seen] = api.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/namespaces/default/pods")
    assert seen.query == {"timeout": "7s", "fieldManager": "vmsim-controller"}
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.body == body


async def test_a_dry_run_sends_dry_run_all(api: ApiServer, client: Client) -> None:
    """The server stores nothing."""
    api.handler = reply(pod_body("a"), status=201)
    await client.create(PODS, {"metadata": {"name": "a"}}, namespace="default", server_deadline=7, dry_run=True)
    [seen] = api.seen
    assert seen.query == {"timeout": "7s", "fieldManager": "vmsim-controller", "dryRun": "All"}


async def test_a_strict_create_asks_for_strict_field_validation(api: ApiServer, client: Client) -> None:
    """Else the server drops unknown fields."""
    api.handler = reply(pod_body("a"), status=201)
    await client.create(PODS, {"metadata": {"name": "a"}}, namespace="default", server_deadline=7, strict=True)
    [seen] = api.seen
    assert seen.query == {"timeout": "7s", "fieldManager": "vmsim-controller", "fieldValidation": "Strict"}


async def test_a_client_writes_under_its_own_field_manager(api: ApiServer, tmp_path: Path) -> None:
    """Creates and patches."""
    api.handler = reply(pod_body("a"))
    source = Source(str(kubeconfig(tmp_path / "another", api.url)))
    async with await Client.connect(source, manager="vmsim-load") as tool:
        await tool.create(PODS, {}, namespace="default", server_deadline=7)
        await tool.merge_patch(PODS, "a", {}, namespace="default")
    assert [seen.query["fieldManager"] for seen in api.seen] == ["vmsim-load", "vmsim-load"]


async def test_merge_patch_sends_its_content_type_and_the_body_unchanged(api: ApiServer, client: Client) -> None:
    """UID, resource version and nulls are in the body; the subresource is part of the path."""
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


async def test_apply_sends_its_content_type_and_force(api: ApiServer, client: Client) -> None:
    """The client becomes the manager of every field that it sends."""
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
async def test_delete_sends_its_preconditions(
    api: ApiServer, client: Client, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A grace of 0 is sent; a grace of None is not."""
    api.handler = reply(pod_body("a", 12))

    version = await client.delete(PODS, "a", namespace="default", **arguments)

    assert version == "12"
    [seen] = api.seen
    assert (seen.method, seen.path) == ("DELETE", "/api/v1/namespaces/default/pods/a")
    assert seen.body == {"apiVersion": "v1", "kind": "DeleteOptions"} | expected


async def test_delete_of_a_removed_object_returns_no_version(api: ApiServer, client: Client) -> None:
    """The reply is a Status, which has none."""
    api.handler = reply({"kind": "Status", "metadata": {}, "status": "Success", "details": {"name": "a", "uid": "u"}})

    assert await client.delete(PODS, "a", namespace="default", uid="u") == ""


# --- replies ---------------------------------------------------------------------------------------------

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
async def test_every_status_code_raises_its_error(
    api: ApiServer, client: Client, code: int, reason: str, kind: type[errors.StatusError], *, unknown: bool
) -> None:
    """With code, reason and message, and whether the write may have been committed."""
    api.handler = reply(status_body(code, reason, "so it is"), status=code)

    with pytest.raises(errors.KubeError) as caught:
        await client.create(PODS, {}, namespace="default", server_deadline=5)

    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.message, error.retry_after) == (code, reason, "so it is", None)
    assert "so it is" in str(error)
    assert error.outcome_unknown is unknown


async def test_a_redirect_is_not_followed(api: ApiServer, client: Client) -> None:
    """The token is sent to no other address."""
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
async def test_an_error_without_a_status_body_quotes_the_body(
    api: ApiServer, client: Client, body: bytes, message: str
) -> None:
    """Its type depends on the code alone."""
    api.handler = reply(body, status=502)

    with pytest.raises(errors.ServerError) as caught:
        await client.get(PODS, "a", namespace="default")

    assert (caught.value.code, caught.value.reason, caught.value.message) == (502, "", message)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("1.5", None), ("²", None)]
)
async def test_retry_after_is_read_if_it_is_a_whole_number_of_seconds(
    api: ApiServer, client: Client, header: str, seconds: float | None
) -> None:
    """Any other value is ignored."""
    api.handler = reply(status_body(429, "TooManyRequests"), status=429, headers={"Retry-After": header})

    with pytest.raises(errors.TooManyRequestsError) as caught:
        await client.get(PODS, "a", namespace="default")

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [HTML, b"", b"null", b"[]", b"7", b'{"metadata": 7}', b'{"kind": "Pod"}', b"\xff", b'{"metadata": {"name": "a"}'],
    ids=["HTML", "empty", "null", "array", "number", "wrong type", "no metadata", "binary", "cut off"],
)
async def test_a_200_with_an_unexpected_body_is_a_malformed_reply(api: ApiServer, client: Client, body: bytes) -> None:
    """The outcome of a write is then unknown."""
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


# --- without a reply -------------------------------------------------------------------------------------


async def test_a_connection_cut_before_the_reply_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """The outcome of a write is then unknown."""
    api.handler = hang_up

    with pytest.raises(errors.TransportError) as caught:
        await client.create(PODS, {}, namespace="default", server_deadline=5)

    assert caught.value.outcome_unknown
    assert "POST /api/v1/namespaces/default/pods" in str(caught.value)


async def test_a_reply_cut_in_its_body_is_a_transport_error(api: ApiServer, client: Client) -> None:
    """The request counts as sent."""

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
    """The message names the address; the request does not count as sent."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    source = Source(str(kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")))

    async with await Client.connect(source) as client:
        with pytest.raises(errors.TransportError, match=str(port)) as caught:
            await client.get(PODS, "a", namespace="default")
    assert not caught.value.sent


@pytest.mark.parametrize("late", [hang, stream(b'{"metadata":', 3600.0)], ids=["no reply", "half a reply"])
async def test_a_request_ends_at_its_deadline(api: ApiServer, client: Client, late: Any) -> None:
    """Whether the server stops before its reply or within it."""
    api.handler = late
    loop = asyncio.get_running_loop()
    before = loop.time()

    with pytest.raises(errors.TransportError, match=r"GET /late: \S"):
        await client._send(Request("GET", "/late"), deadline=0.1)

    assert loop.time() - before < 5
    await asyncio.wait_for(api.quiet.wait(), 5)


async def test_a_client_works_after_a_failed_request(api: ApiServer, client: Client) -> None:
    """Nothing of the failed request affects the next."""
    for failure in (hang_up, reply(HTML, status=502), reply(HTML)):
        api.handler = failure
        with pytest.raises(errors.KubeError):
            await client.get(PODS, "a", namespace="default")

    api.handler = reply(pod_body("a"))
    assert (await client.get(PODS, "a", namespace="default")).metadata.name == "a"


# --- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_the_error_of_a_proxys_refusal_omits_its_password(tmp_path: Path, line: str) -> None:
    """So does the traceback; both name the status and the proxy."""

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


async def test_the_servers_password_is_in_no_error_and_no_metric(tmp_path: Path) -> None:
    """Whatever the result of the request."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    reported: list[tuple[str, str, str]] = []
    for url in (f"http://u:secret@127.0.0.1:{port}", "http://u:secret@:1"):
        source = Source(str(kubeconfig(tmp_path / "config", url, {"as": "jane"})))
        async with await Client.connect(source, answered=lambda *request: reported.append(request)) as client:
            with pytest.raises(errors.TransportError) as caught:
                await client.ready()
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert reported == [("GET", f"127.0.0.1:{port}", "<error>"), ("GET", ":1", "<error>")]
