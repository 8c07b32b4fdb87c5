"""Fixtures: a server that listens, and a client that is connected to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.kube.client import Client
from controller.kube.credentials import Source
from controller.serving.tls import Files
from tests.certificates import self_signed
from tests.unit.kube.builders import ApiServer, kubeconfig, listening, server_tls


@pytest.fixture(autouse=True)
def _no_system_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every client from reading the machine's whole CA store, which costs more than the test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """Start a server on a free port of the loopback interface."""
    async with listening(None) as server:
        yield server


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make a certificate for servers with TLS."""
    return self_signed(tmp_path_factory.mktemp("tls"), "api")


@pytest.fixture
async def secure(pair: Files) -> AsyncIterator[ApiServer]:
    """Start a server with TLS, to which credentials are sent."""
    async with listening(server_tls(pair)) as server:
        yield server


@pytest.fixture
def config(api: ApiServer, tmp_path: Path) -> Path:
    """Write a kubeconfig that leads to the server, with the token `first`."""
    return kubeconfig(tmp_path / "config", api.url)


@pytest.fixture
async def client(config: Path) -> AsyncIterator[Client]:
    """Connect to the server."""
    async with await Client.connect(Source(str(config))) as connected:
        yield connected
