"""Settings of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from controller.engine.log_context import add_reconcile


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Print one `key=value` line an event: drawing tracebacks with locals would cost more than the tests."""
    structlog.configure(
        processors=[
            add_reconcile,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(),
        ]
    )
    yield
    structlog.reset_defaults()
