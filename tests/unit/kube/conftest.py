"""Fixtures of this folder: a server that listens, and a client that is connected to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from controller.kube.client import Client
from controller.kube.credentials import Source
from tests.unit.kube.builders import ApiServer, kubeconfig, reply


@pytest.fixture(autouse=True)
def _no_system_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every client from reading the machine's whole CA store, which costs more than the test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """Start a server on a free port of the loopback interface."""
    server = ApiServer(reply({}))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def config(api: ApiServer, tmp_path: Path) -> Path:
    """Write a kubeconfig that leads to the server, with the token `first`."""
    return kubeconfig(tmp_path / "config", api.url)


@pytest.fixture
async def client(config: Path) -> AsyncIterator[Client]:
    """Connect to the server."""
    async with await Client.connect(Source(str(config))) as connected:
        yield connected
