"""Fixtures of this folder's tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import structlog

from tests.model.staged import Staged


@pytest.fixture
def cluster() -> Staged:
    """Return an empty cluster; the log of the operations stays out of the tests' output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return Staged()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Restore the signal handlers, which a command that starts processes replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
