"""Settings of this folder's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(scope="session", autouse=True)
def _no_implicit_loop() -> None:
    """Keep `get_event_loop` from making a loop that nobody closes: plugins call it before synchronous tests."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Print one `key=value` line an event: drawing tracebacks with locals would cost more than the tests."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(),
        ]
    )
    yield
    structlog.reset_defaults()
