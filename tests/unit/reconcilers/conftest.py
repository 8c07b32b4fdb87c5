"""What most tests of the reconcilers begin with."""

from __future__ import annotations

import pytest

from tests.model.cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """One node, one VM."""
    made = Cluster()
    made.add_node()
    made.apply_vm()
    return made
