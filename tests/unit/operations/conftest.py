"""Settings of this folder's tests."""

from __future__ import annotations

import pytest
import structlog

from tests.unit.operations.cluster import Cluster


@pytest.fixture(autouse=True)
def _no_logs() -> None:
    """Keep the reflectors' log out of the tests' output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture
def cluster() -> Cluster:
    """Return an empty cluster."""
    return Cluster()
