"""Requests use the proxy of the kubeconfig or the environment, or none if these say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.kube.errors import CredentialsError, StatusError, TransportError
from controller.kube.resources import PODS
from tests.unit.kube.builders import ApiServer, hang, kubeconfig, line, reply, status_body, stream

FAR = "http://far.example:6443"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxy variables of the machine that runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_requests_use_the_environments_proxy(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's name is not resolved here; the proxy gets it."""
    monkeypatch.setenv("http_proxy", api.url)
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR)))) as client:
        await client.ready()
    [seen] = api.seen
    assert seen.headers["Host"] == "far.example:6443"


async def test_a_kubeconfigs_proxy_takes_precedence(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in kubectl."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    config = kubeconfig(tmp_path / "far", FAR)
    config.write_text(config.read_text().replace(f'"server": "{FAR}"', f'"server": "{FAR}", "proxy-url": "{api.url}"'))
    async with await Client.connect(Source(str(config))) as client:
        await client.ready()
    assert len(api.seen) == 1


async def test_an_api_server_on_loopback_needs_no_proxy(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the environment names one."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "near", api.url)))) as client:
        await client.ready()
    assert len(api.seen) == 1


async def test_a_failure_through_a_proxy_names_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the variable that sets it, without its password."""
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR)))) as client:
        with pytest.raises(TransportError, match=r"through the proxy http://127\.0\.0\.1:9 of HTTP_PROXY$") as caught:
            await client.ready()
    assert "secret" not in str(caught.value)


async def test_the_error_of_a_proxys_own_page_names_the_proxy(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server did not send it."""
    api.handler = reply(b"<html>who are you?</html>", status=407)
    monkeypatch.setenv("http_proxy", api.url)
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR)))) as client:
        with pytest.raises(StatusError, match=r"who are you.*through the proxy .* of http_proxy"):
            await client.ready()


async def test_an_api_servers_error_does_not_name_the_proxy(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is not its cause."""
    api.handler = reply(status_body(403, "Forbidden", "no"), status=403)
    monkeypatch.setenv("http_proxy", api.url)
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR)))) as client:
        with pytest.raises(StatusError) as caught:
            await client.ready()
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("url", ["socks5://p:1", "foo://p:1", "http://p:port"])
async def test_a_proxy_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Nothing is sent, neither through it nor past it."""
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(CredentialsError, match="of HTTP_PROXY"):
        await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR))))


async def test_a_request_ends_at_the_request_timeout(api: ApiServer, config: Path) -> None:
    """kubectl's --request-timeout."""
    api.handler = hang
    async with await Client.connect(Source(str(config)), deadline=0.05) as client:
        with pytest.raises(TransportError):
            await client.list_page(PODS, limit=1)


@pytest.mark.parametrize("deadline", [0.05, float("inf")])
async def test_the_request_deadline_does_not_limit_a_watch(api: ApiServer, config: Path, deadline: float) -> None:
    """Only silence ends it."""
    api.handler = stream(line("ADDED", "a"), 0.1, line("ADDED", "b"))
    async with await Client.connect(Source(str(config)), deadline=deadline) as client:
        seen = [len(events) async for events in client.watch(PODS, resource_version="1", life=300)]
    assert sum(seen) == 2


async def test_impersonation_headers_are_sent_with_every_request(api: ApiServer, tmp_path: Path) -> None:
    """Without them the request would have the rights of another user."""
    user = {"token": "t", "as": "jane", "as-uid": "7", "as-groups": ["dev", "ops"], "as-user-extra": {"a/b": ["c"]}}
    seen: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.extend((name, value) for name, value in request.headers.items() if name.startswith("Impersonate"))
        return web.json_response({})

    api.handler = handler
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "config", api.url, user)))) as client:
        await client.ready()
    assert seen == [
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-a%2Fb", "c"),
    ]


async def test_a_kubeconfig_may_disable_compression(api: ApiServer, tmp_path: Path) -> None:
    """On a fast network it costs more than it saves."""
    config = kubeconfig(tmp_path / "config", api.url)
    config.write_text(config.read_text().replace('"server"', '"disable-compression": true, "server"'))
    async with await Client.connect(Source(str(config))) as client:
        await client.ready()
    assert api.seen[0].headers["Accept-Encoding"] == "identity"
