"""Fixtures that the tests of the control plane share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.host import Platform
from controller.controlplane.sources import Sources
from tests.unit.controlplane.support import (
    QuietHandler,
    RecordingReporter,
    ReleaseServer,
    TruncatingHandler,
    serving,
)


@pytest.fixture
def report() -> RecordingReporter:
    """Return a reporter that records."""
    return RecordingReporter()


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Return sources without any program; each test adds the one that it needs."""
    (tmp_path / "path").mkdir()
    (tmp_path / "venv").mkdir()
    return Sources(
        cache=tmp_path / "cache",
        platform=Platform("linux", "amd64"),
        search_path=str(tmp_path / "path"),
        beside=tmp_path / "venv",
        download=False,
        build=False,
        free_space=lambda _: 1 << 40,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReleaseServer]:
    """Serve an empty tree of releases."""
    with serving(tmp_path / "releases", QuietHandler) as served:
        yield served


@pytest.fixture
def truncating_server(tmp_path: Path) -> Iterator[ReleaseServer]:
    """Serve an empty tree of releases, each file cut in its middle."""
    with serving(tmp_path / "truncated-releases", TruncatingHandler) as served:
        yield served
