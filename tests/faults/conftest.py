"""The control plane of these tests: with our CRDs and without nodes, since every stage has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller.controlplane.plane import ControlPlane
from tests.plane import install


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Start one for all runs of a file."""
    with ControlPlane(tmp_path_factory.mktemp("plane") / "state", nodes=0) as plane:
        install(plane)
        yield plane
