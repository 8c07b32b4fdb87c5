"""Fixtures of this folder: a server that listens, and a client that is connected to it."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.telemetry.tls import Files
from tests.certificates import self_signed
from tests.unit.kube.builders import ApiServer, kubeconfig, reply


@pytest.fixture(autouse=True)
def _no_system_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every client from reading the machine's whole CA store, which costs more than the test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """Start a server on a free port of the loopback interface."""
    async with _listening(None) as server:
        yield server


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make a certificate for servers with TLS."""
    return self_signed(tmp_path_factory.mktemp("tls"), "api")


@pytest.fixture
async def secure(pair: Files) -> AsyncIterator[ApiServer]:
    """Start a server with TLS, to which credentials are shown."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    async with _listening(tls) as server:
        yield server


@asynccontextmanager
async def _listening(tls: ssl.SSLContext | None) -> AsyncIterator[ApiServer]:
    server = ApiServer(reply({}))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
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
