"""Which VMs a drain moves, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from controller.cli.drain import Survey, aftermath, hindrance, label, survey
from controller.domain.objects import Condition, Pod, VirtualMachine, VirtualMachineMigration
from tests.unit.cli.builders import migration, pod, vm


def look(
    *vms: VirtualMachine,
    pods: Iterable[Pod] = (),
    migrations: Iterable[VirtualMachineMigration] = (),
    ours: Mapping[str, VirtualMachineMigration | None] | None = None,
) -> Survey:
    """Survey node n1."""
    return survey("n1", vms=vms, pods=pods, migrations=migrations, ours=ours or {})


def chosen(found: Survey) -> list[str]:
    """Return the names of the VMs that need a migration."""
    return [found.metadata.name for found in found.to_move]


def test_every_vm_that_runs_on_the_node_moves() -> None:
    """And none of another node's; in an order that does not dance."""
    assert chosen(look(vm("b", "n1"), vm("a", "n1"), vm("c", "n2"))) == ["a", "b"]


@pytest.mark.parametrize("phase", ["Scheduled", "Failed", "Pending", "Stopped"])
def test_a_vm_that_does_not_run_is_not_moved(phase: str) -> None:
    """There is nothing to move yet, or no longer."""
    assert chosen(look(vm("a", "n1", phase=phase))) == []


def test_a_vm_that_is_to_stop_is_not_moved() -> None:
    """It leaves by itself."""
    assert chosen(look(vm("a", "n1", running=False), vm("b", "n1", deleted=True))) == []


def test_a_vm_with_an_unfinished_migration_is_not_moved_twice() -> None:
    """The other one may take it off the node."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", phase="Scheduling")])) == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_migration_is_no_hindrance(phase: str) -> None:
    """It is history."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", phase=phase)])) == ["a"]


def test_a_record_is_no_hindrance() -> None:
    """It is never carried out."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", record_of="uid")])) == ["a"]


def test_a_migration_of_the_same_name_in_another_namespace_is_no_hindrance() -> None:
    """It is about another VM."""
    assert chosen(look(vm("a", "n1"), migrations=[migration("a", namespace="other")])) == ["a"]


def test_a_vm_gets_one_migration_of_ours_only() -> None:
    """What failed once is for a person to judge."""
    failed = migration("a", phase="Failed")
    assert chosen(look(vm("a", "n1"), migrations=[failed], ours={"default/a": failed})) == []


def test_an_empty_node_is_drained() -> None:
    """There is nothing to wait for."""
    assert look(vm("a", "n2"), pods=[pod("a", "n2")]).settled


def test_a_pod_on_the_node_is_waited_for() -> None:
    """Whatever the VM's status says already."""
    assert not look(vm("a", None, phase="Scheduling"), pods=[pod("a", "n1")]).settled


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_not_waited_for(phase: str) -> None:
    """It holds nothing."""
    assert look(vm("a", None, phase="Scheduling"), pods=[pod("a", "n1", phase=phase)]).settled


def test_a_strangers_pod_is_not_waited_for() -> None:
    """A drain of ours is about VMs."""
    assert look(pods=[pod("a", "n1", kind="Job")]).settled


def test_a_migration_under_way_is_waited_for_although_the_pod_is_gone() -> None:
    """The VM has left, but has not arrived."""
    found = look(vm("a", None, phase="Scheduling"), ours={"default/a": migration("a", phase="Scheduling")})
    assert found.under_way == {"default/a"}
    assert not found.settled


def test_a_drain_ends_well_when_every_migration_succeeded() -> None:
    """And says which."""
    found = look(vm("a", "n2"), pods=[pod("a", "n2")], ours={"default/a": migration("a", phase="Succeeded")})
    assert found.settled
    assert found.moved == {"default/a"}
    assert not found.failed


def test_a_failed_migration_ends_the_drain_although_its_vm_stays() -> None:
    """Nobody is going to move it."""
    failed = migration("a", phase="Failed", failure_reason="NoRoom", message="Full")
    found = look(vm("a", "n1"), pods=[pod("a", "n1")], migrations=[failed], ours={"default/a": failed})
    assert found.settled
    assert found.failed == {"default/a": "NoRoom: Full"}


def test_one_failure_does_not_keep_the_others_from_moving() -> None:
    """The drain goes on until all have ended."""
    ours = {"default/a": migration("a", phase="Failed"), "default/b": migration("b", phase="Starting")}
    assert not look(vm("a", "n1"), vm("b", None), pods=[pod("a", "n1")], ours=ours).settled


def test_a_deleted_migration_is_a_failure() -> None:
    """Somebody cancelled it."""
    assert look(vm("a", "n1"), ours={"default/a": None}).failed == {"default/a": "its migration was deleted"}


@pytest.mark.parametrize("vms", [[], [vm("a", None, running=False)]], ids=["deleted", "stopped"])
def test_a_vm_that_was_stopped_or_deleted_meanwhile_is_no_failure(vms: list[VirtualMachine]) -> None:
    """It has left the node, too."""
    found = look(*vms, ours={"default/a": migration("a", phase="Failed", failure_reason="VMStopped")})
    assert found.settled
    assert not found.failed


def waiting(reason: str, phase: str = "Pending") -> VirtualMachineMigration:
    """Return a migration that waits for a reason."""
    return migration(phase=phase, conditions=(Condition(type="Completed", reason=reason),))


def test_a_hindrance_is_worth_a_line() -> None:
    """A person may be able to help."""
    assert hindrance(waiting("NoRoom")) == "NoRoom"


@pytest.mark.parametrize("other", [waiting("WaitingForTurn"), waiting("NoRoom", "Starting"), migration()])
def test_waiting_for_ones_turn_is_none(other: VirtualMachineMigration) -> None:
    """It passes by itself."""
    assert hindrance(other) is None


@pytest.mark.parametrize("node", ["n1", "a" * 253, f"{'a' * 62}.b", f"{'a' * 61}.-b"])
def test_any_node_can_be_named_in_a_label(node: str) -> None:
    """A label ends in a letter or digit, at 63 characters at the latest."""
    value = label(node)
    assert node.startswith(value)
    assert 0 < len(value) <= 63
    assert value[-1].isalnum()


def test_the_way_back_names_the_node() -> None:
    """It can be pasted."""
    assert "    kubectl uncordon n1" in aftermath("n1", waiting=False)


def test_the_way_back_cancels_what_waits_of_this_drain_only() -> None:
    """By label, and by phase."""
    command = "kubectl delete vmm -A -l simulation.node-classifier.io/drain=n1 --field-selector status.phase=Pending"
    assert command in aftermath("n1", waiting=True)
