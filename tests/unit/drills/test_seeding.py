"""The fleets that drills ask for."""

from __future__ import annotations

from random import Random

import pytest

from hack.drills.seeding import SizeError, packed, roomy


def rng(seed: int) -> Random:
    """A source of chance that a seed determines."""
    return Random(seed)  # noqa: S311 - no secret


def test_the_same_seed_makes_the_same_fleet() -> None:
    """And another seed another one."""
    assert roomy(rng(3), 20, 5) == roomy(rng(3), 20, 5)
    assert roomy(rng(3), 20, 5) != roomy(rng(4), 20, 5)


@pytest.mark.parametrize(("vms", "nodes"), [(1, 2), (6, 3), (60, 10), (200, 20), (1000, 50)])
def test_a_roomy_fleet_fits_with_one_node_less(vms: int, nodes: int) -> None:
    """With room to spare: the sum stays below four fifths, and no VM is larger than a quarter of a node."""
    fleet = roomy(rng(1), vms, nodes)
    assert len({wish.name for wish in fleet}) == vms
    for shares in ([float(wish.cpu) for wish in fleet], [float(wish.memory) for wish in fleet]):
        assert sum(shares) <= 0.8 * (nodes - 1)
        assert 0 < min(shares) <= max(shares) <= 0.25


@pytest.mark.parametrize(("vms", "nodes"), [(6, 3), (3, 3), (70, 10), (200, 20)])
def test_a_packed_fleet_leaves_no_room(vms: int, nodes: int) -> None:
    """What is free on a node is less than a VM, and what it holds is no more than it has."""
    share = float(packed(vms, nodes)[0].cpu)
    each = vms // nodes
    assert each * share <= 1 < (each + 1) * share


def test_sizes_that_cannot_be_are_refused() -> None:
    """With the reason."""
    with pytest.raises(SizeError, match="at least 2 nodes"):
        roomy(rng(1), 5, 1)
    with pytest.raises(SizeError, match="at most 100 VMs"):
        roomy(rng(1), 101, 2)
    with pytest.raises(SizeError, match="a multiple of 3"):
        packed(7, 3)
    with pytest.raises(SizeError, match="at most 300 VMs"):
        packed(303, 3)


def test_a_wish_is_a_virtual_machine() -> None:
    """As the API server wants it."""
    wish = packed(2, 2)[0]
    assert wish.manifest()["kind"] == "VirtualMachine"
    assert wish.manifest()["metadata"] == {"name": "vm-1"}
    assert wish.manifest()["spec"] == {"resources": {"cpu": "1.0000", "memory": "1.0000"}}
