"""Settings of this folder's tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_system_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every client from reading the machine's whole CA store, which costs more than the test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
