"""The cluster of most tests of the reconcilers."""

from __future__ import annotations

import pytest

from tests.model.cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """One VM, and node-1."""
    found = Cluster()
    found.add_node()
    found.apply_vm()
    return found
