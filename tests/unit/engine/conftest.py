"""Settings of this folder's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog

# Plugins call `get_event_loop` before synchronous tests, of any folder; without this it makes a loop that nobody
# closes, and a later test fails of the warning. So it is done when tests are collected, before any of them runs.
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
