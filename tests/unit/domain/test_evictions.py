"""Records of evictions: they follow a VM whose pod another client evicted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.migration.phases import GUESS, Reason
from controller.domain.migration.plan import Plan, WriteMigration
from controller.domain.objects import VirtualMachine, VirtualMachineMigration, VMStatus
from controller.domain.vm import records
from controller.kube.kinds import Node, Pod
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import pod, vm
from tests.unit.domain.moves import SILENT, decided, move, written

EVICTED = Condition(type="DisruptionTarget", status="True", reason="EvictionByEvictionAPI")
SPARED = Condition(type="DisruptionTarget", status="False")
OWNER = vm(status=VMStatus(phase="Running", node_name="kwok-node-1", incarnation=0))


def moved(incarnation: int = 1, **changes: Any) -> VirtualMachine:
    """The VM in an incarnation after the evicted one."""
    return vm(status=VMStatus(phase="Scheduling", incarnation=incarnation), **changes)


def source(**state: Any) -> Pod:
    """The pod that was evicted."""
    return pod(OWNER, 0, uid="evicted", phase="Running", node="kwok-node-1", **state)


def record(reason: str = records.EVICTED, phase: str = "Pending", **annotations: str) -> VirtualMachineMigration:
    """The record of that eviction."""
    item = move("record", state={"phase": phase}, record_of="evicted", reason=reason)
    annotated = {
        names.SOURCE_NODE: "kwok-node-1",
        names.SOURCE_POD: "source",
        names.SOURCE_INCARNATION: "0",
        names.SOURCE_VM: "uid-1",
        **annotations,
    }
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, annotations=annotated))


@pytest.mark.parametrize("before", ["Pending", "Terminating", "Scheduling", "Starting"])
@pytest.mark.parametrize(
    ("found", "pods", "phase", "reason"),
    [
        (OWNER, (source(conditions=(EVICTED,)),), "Terminating", None),
        (OWNER, (source(terminating=True),), "Terminating", None),
        (moved(), (source(terminating=True),), "Scheduling", None),
        (moved(), (), "Scheduling", None),
        (moved(), (pod(OWNER, 1),), "Scheduling", None),
        (moved(), (pod(OWNER, 1, node="kwok-node-2"),), "Starting", None),
        (moved(), (pod(OWNER, 1, phase="Running", node="kwok-node-2"),), "Succeeded", None),
        (moved(), (pod(OWNER, 1, phase="Failed"),), "Scheduling", None),
        (OWNER, (pod(OWNER, 0, uid="next", phase="Running", node="kwok-node-2"),), "Succeeded", None),
        (moved(7), (pod(OWNER, 7, phase="Running", node="kwok-node-2"),), "Succeeded", None),
        (OWNER, (source(conditions=(SPARED,)),), "Failed", Reason.CANCELLED),
        (moved(running=False), (), "Failed", Reason.VM_STOPPED),
        (moved(deleted=True), (), "Failed", Reason.VM_DELETED),
        (None, (), "Failed", Reason.VM_DELETED),
    ],
)
def test_a_record_follows_the_vm_in_any_phase(
    before: str, found: VirtualMachine | None, pods: tuple[Pod, ...], phase: str, reason: Reason | None
) -> None:
    """It never acts. A successor in the evicted incarnation, or after a wiped status, counts, too."""
    plan = decided(record(phase=before), found, *pods)
    assert (written(plan).phase, written(plan).failure_reason) == (phase, reason)
    assert [type(action) for action in plan.actions] == [WriteMigration]


@pytest.mark.parametrize("incarnation", ["", "x", "-1", "9" * 10])
def test_a_record_without_a_source_incarnation_fails(incarnation: str) -> None:
    """The controller did not create it."""
    plan = decided(record(**{names.SOURCE_INCARNATION: incarnation}), OWNER)
    assert written(plan).failure_reason == Reason.INVALID_RECORD


@pytest.mark.parametrize(
    ("pods", "node", "phase", "again"),
    [
        ((source(),), None, "Terminating", 10),
        ((source(terminating=True),), Node(ObjectMeta(name="kwok-node-1")), "Terminating", 5),
        ((source(),), Node(ObjectMeta(name="kwok-node-1")), "Failed", None),
        ((source(terminating=True),), SILENT, "Terminating", None),
    ],
)
def test_a_record_of_a_lost_node_is_cancelled_when_the_node_returns(
    pods: tuple[Pod, ...], node: Node | None, phase: str, again: float | None
) -> None:
    """Until the deletion of the pod has begun."""
    plan = decided(record(records.NODE_LOST), OWNER, *pods, source_node=node)
    assert (written(plan).phase, plan.requeue_after) == (phase, again)


def test_a_record_has_no_caveat_about_unknown_pods() -> None:
    """There was no preflight for it."""
    assert written(decided(record(), moved(), guessed=True)).message != GUESS


def test_a_finished_record_does_not_change() -> None:
    """Even when the VM no longer exists."""
    assert decided(record(phase="Succeeded"), None) == Plan()
