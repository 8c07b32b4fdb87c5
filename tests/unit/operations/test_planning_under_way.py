"""A drain that is planned while VMs move already: their slots, and when they leave."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from controller.domain.copying.record import Copying
from controller.domain.objects import Claim, MigrationSpec, MigrationStatus, VirtualMachineMigration
from controller.kube import times
from controller.kube.meta import ObjectMeta
from controller.operations.planning import timing
from tests.unit.domain.builders import NOW
from tests.unit.operations.fleets import known, node, other_pod, plan, settings, vm

NODES = [node("n1"), node("n2"), node("n3")]
LIVE = settings(live=True, dirty_rate=0.0, bandwidth_per_node=1e9)


def claim(**changes: Any) -> Claim:
    """Return the claim of the migration `move`, away from `n1`."""
    return Claim(**{"name": "move", "uid": "move", "source_node": "n1", "reserved_node": "n2", **changes})


def migration(of: str, *, phase: str = "Running", copying: Copying | None = None) -> VirtualMachineMigration:
    """Return the migration `move` of a VM."""
    metadata = ObjectMeta(name="move", namespace="default", uid="move")
    return VirtualMachineMigration(metadata, MigrationSpec(vm_name=of), MigrationStatus(phase=phase, copying=copying))


def test_a_move_that_is_under_way_has_a_slot() -> None:
    """With one slot of the node, the other VM waits for its end; neither leaves twice."""
    moving = vm("moving", "n1", claim=claim())
    of = known(NODES, [moving, vm("waits", "n1")], settings(outbound=1), migrations=[migration("moving")])
    found = plan(of, "n1")
    assert found.possible
    assert [(step.vm, step.target, step.begins) for step in found.steps] == [
        ("default/moving", "n2", 0),
        ("default/waits", "n3", pytest.approx(timing.RECREATE)),
    ]
    assert (found.at_once, found.nodes[0].vms) == (1, 2)


def test_a_move_away_from_another_node_has_a_slot_too() -> None:
    """Of the cluster's; it is no move of the drain."""
    moving = vm("moving", "n3", claim=claim(source_node="n3"))
    of = known(NODES, [moving, vm("waits", "n1")], settings(cluster=1), migrations=[migration("moving")])
    [step] = plan(of, "n1").steps
    assert step.begins == pytest.approx(timing.RECREATE)


def test_a_live_move_goes_on_from_its_checkpoint() -> None:
    """Its record is 5 s old, so it has 5 s less to go than one that begins."""
    machine, pod = vm("moving", "n1", claim=claim(strategy="Live", target_incarnation=1))
    began = times.micro_timestamp(NOW - timedelta(seconds=5))
    record = msgspec.structs.replace(timing.copying(machine, pod, LIVE), timestamp=began)
    of = known(NODES, [(machine, pod)], LIVE, migrations=[migration("moving", copying=record)])
    [step] = plan(of, "n1").steps
    [whole] = plan(known(NODES, [vm("moving", "n1")], LIVE), "n1").steps
    assert step.ends == pytest.approx(whole.ends - timing.LIVE_BEFORE - 5)


def test_a_live_move_that_does_not_copy_yet_copies_all() -> None:
    """Its target is being made."""
    moving = vm("moving", "n1", claim=claim(strategy="Live", target_incarnation=1))
    [step] = plan(known(NODES, [moving], LIVE, migrations=[migration("moving")]), "n1").steps
    [whole] = plan(known(NODES, [vm("moving", "n1")], LIVE), "n1").steps
    assert step.ends == pytest.approx(whole.ends)


def test_the_node_reserved_for_a_move_is_taken() -> None:
    """Both VMs want 60 % of a node, and only one other node is left."""
    moving = vm("moving", "n1", cpu="0.6", claim=claim())
    of = known(NODES, [moving, vm("waits", "n1", cpu="0.6")], migrations=[migration("moving")])
    assert [step.target for step in plan(of, "n1").steps] == ["n2", "n3"]


def test_a_vm_whose_migration_waits_for_its_turn_leaves_as_the_others() -> None:
    """The drain would wait for it, and ask for no second one."""
    of = known(NODES, [vm("vm-1", "n1")], migrations=[migration("vm-1", phase="Pending")])
    assert [step.vm for step in plan(of, "n1").steps] == ["default/vm-1"]


def test_a_vm_whose_move_ends_on_the_node_leaves_it_as_well() -> None:
    """Also if it was handed over already, and its source is being cleaned up."""
    for on in ("n1", "n2"):
        moving = vm("moving", on, claim=claim())
        found = plan(known(NODES, [moving], migrations=[migration("moving")]), "n2")
        assert found.possible
        [step] = found.steps
        assert (step.vm, step.node) == ("default/moving", "n2")
        assert step.begins == pytest.approx(timing.RECREATE)
        assert (found.nodes[0].vms, found.nodes[0].empty) == (1, step.ends)
        both = plan(known(NODES, [moving], migrations=[migration("moving")]), "n1", "n2")
        assert both.possible
        assert [(step.node, step.target) for step in both.steps] == [("n1", "n2"), ("n2", "n3")]


def test_a_vm_whose_move_ends_on_the_node_stays_if_there_is_no_room() -> None:
    """No other node has as much."""
    moving = vm("moving", "n1", cpu="0.6", claim=claim())
    full = [other_pod(f"web-{name}", name, "20") for name in ("n1", "n3")]
    found = plan(known(NODES, [moving], pods=full, migrations=[migration("moving")]), "n2")
    assert [(blocker.vm, blocker.node) for blocker in found.blockers] == [("default/moving", "n2")]
    assert found.nodes[0].empty is None


def test_migrations_of_other_nodes_that_wait_are_not_judged() -> None:
    """They may get a slot between those of the drain."""
    of = known(NODES, [vm("vm-1", "n1"), vm("vm-2", "n2")], migrations=[migration("vm-2", phase="Pending")])
    [entry] = plan(of, "n1").not_judged
    assert entry.vms == ("default/vm-2",)
