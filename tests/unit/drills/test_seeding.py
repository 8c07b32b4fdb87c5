"""The fleets that drills create."""

from __future__ import annotations

from random import Random

import pytest

from hack.drills.seeding import SizeError, packed, roomy


def rng(seed: int) -> Random:
    """Return a random generator with a seed."""
    return Random(seed)  # noqa: S311 - no secret


def test_a_seed_determines_the_fleet() -> None:
    """Another seed yields another fleet."""
    assert roomy(rng(3), 20, 5) == roomy(rng(3), 20, 5)
    assert roomy(rng(3), 20, 5) != roomy(rng(4), 20, 5)


@pytest.mark.parametrize(("vms", "nodes"), [(1, 2), (6, 3), (60, 10), (200, 20), (1000, 50)])
def test_a_roomy_fleet_fits_with_one_node_less(vms: int, nodes: int) -> None:
    """The sum stays below four fifths of the nodes, and no VM is larger than a quarter of a node."""
    fleet = roomy(rng(1), vms, nodes)
    assert len({vm.name for vm in fleet}) == vms
    for shares in ([float(vm.cpu) for vm in fleet], [float(vm.memory) for vm in fleet]):
        assert sum(shares) <= 0.8 * (nodes - 1)
        assert 0 < min(shares) <= max(shares) <= 0.25


@pytest.mark.parametrize(("vms", "nodes"), [(6, 3), (3, 3), (70, 10), (200, 20)])
def test_a_packed_fleet_leaves_no_capacity_for_another_vm(vms: int, nodes: int) -> None:
    """The VMs of a node fit on it, and one more would not."""
    share = float(packed(vms, nodes)[0].cpu)
    each = vms // nodes
    assert each * share <= 1 < (each + 1) * share


def test_impossible_sizes_are_refused() -> None:
    """With their reasons."""
    with pytest.raises(SizeError, match="at least 2 nodes"):
        roomy(rng(1), 5, 1)
    with pytest.raises(SizeError, match="at most 100 VMs"):
        roomy(rng(1), 101, 2)
    with pytest.raises(SizeError, match="a multiple of 3"):
        packed(7, 3)
    with pytest.raises(SizeError, match="at most 300 VMs"):
        packed(303, 3)


def test_the_manifest_of_a_desired_vm_is_a_virtual_machine() -> None:
    """In the form that the API server accepts."""
    vm = packed(2, 2)[0]
    assert vm.manifest()["kind"] == "VirtualMachine"
    assert vm.manifest()["metadata"] == {"name": "vm-1"}
    assert vm.manifest()["spec"] == {"resources": {"cpu": "1.0000", "memory": "1.0000"}}
