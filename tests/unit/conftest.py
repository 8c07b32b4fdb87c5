"""Fixtures of the unit tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_of_nobody_else() -> Iterator[None]:
    """Begin with structlog as it is, whatever command another test ran in this process, and leave it so."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Give a test the process's logging anew, and leave nothing of its own, such as its standard error, to others."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level
