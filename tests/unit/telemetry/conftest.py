"""Settings of this folder's tests."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_implicit_loop() -> None:
    """Keep `get_event_loop` from making a loop that nobody closes: plugins call it before synchronous tests."""
    asyncio.set_event_loop(None)
