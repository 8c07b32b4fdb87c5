"""Whole lists."""

from __future__ import annotations

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.listing import everything
from controller.kube import errors as kube
from tests.model.staged import Staged

NAMES = [f"vm-{number}" for number in range(5)]


@pytest.fixture
def full(cluster: Staged) -> Staged:
    """Return a cluster whose lists come in three pages."""
    cluster.page_size = 2
    for name in NAMES:
        cluster.vm(name)
    return cluster


async def test_every_page_is_read(full: Staged) -> None:
    """In order."""
    assert [vm.metadata.name for vm in await everything(full, VIRTUAL_MACHINES)] == NAMES


async def test_pages_that_grew_too_old_are_read_again_in_one_piece(full: Staged) -> None:
    """And nothing is there twice."""
    full.expire = True
    assert [vm.metadata.name for vm in await everything(full, VIRTUAL_MACHINES)] == NAMES


async def test_a_first_page_that_cannot_be_had_is_an_error(full: Staged) -> None:
    """There is nothing to read again."""
    full.failures["list virtualmachines"] = kube.ExpiredError(410, "Expired", "too old")
    with pytest.raises(kube.ExpiredError):
        await everything(full, VIRTUAL_MACHINES)
