"""Requests go by the proxy that the kubeconfig or the environment names, and by none where it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.kube.session import environment_proxy
from tests.unit.kube.builders import ApiServer, kubeconfig

FAR = "http://far.example:6443"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the proxies of whoever runs the tests away."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_requests_go_by_the_environments_proxy(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that is far away is never looked up; the proxy is asked for it."""
    monkeypatch.setenv("http_proxy", api.url)
    async with await Client.connect(Source(str(kubeconfig(tmp_path / "far", FAR)))) as client:
        await client.ready()
    [seen] = api.seen
    assert seen.headers["Host"] == "far.example:6443"


async def test_a_kubeconfigs_proxy_comes_first(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with kubectl."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    config = kubeconfig(tmp_path / "far", FAR)
    config.write_text(config.read_text().replace(f'"server": "{FAR}"', f'"server": "{FAR}", "proxy-url": "{api.url}"'))
    async with await Client.connect(Source(str(config))) as client:
        await client.ready()
    assert len(api.seen) == 1


@pytest.mark.parametrize(
    ("environment", "server", "expected"),
    [
        ({}, "https://a.example", None),
        ({"https_proxy": "http://p:1"}, "https://a.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://a.example", None),
        ({"https_proxy": "http://p:1", "no_proxy": "a.example"}, "https://a.example:6443", None),
        ({"https_proxy": "http://p:1", "no_proxy": ".example"}, "https://a.example", None),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, "https://a.example", None),
        ({"https_proxy": "http://p:1", "no_proxy": "b.example"}, "https://a.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "no URL at all", None),
    ],
)
def test_the_environment_is_read_as_curl_reads_it(
    environment: dict[str, str], server: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lower case and upper case, with the exceptions."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(server) == expected
