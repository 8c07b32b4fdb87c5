"""Settings of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.model.staged import Staged


@pytest.fixture(autouse=True)
def _no_logs() -> None:
    """Keep the reflectors' log out of the tests' output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture
def cluster() -> Iterator[Staged]:
    """Return an empty cluster, in which no operation patches anything."""
    made = Staged()
    yield made
    assert not [request for request in made.requests if request.startswith("patch")]
