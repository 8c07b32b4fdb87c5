"""Fixtures of this folder's tests."""

from __future__ import annotations

import pytest
import structlog

from tests.unit.operations.cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """Return an empty cluster; the log of those who watch it stays out of the tests' output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return Cluster()
