"""Migrations, VMs that move, and decisions about them, with defaults for what a test does not set."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from controller.domain.migration.decide import decide
from controller.domain.migration.plan import Answers, Ask, Plan, View, WriteMigration
from controller.domain.objects import (
    Claim,
    MigrationSpec,
    MigrationStatus,
    PhaseTime,
    VirtualMachine,
    VirtualMachineMigration,
    VMStatus,
)
from controller.kube import times
from controller.kube.kinds import Node, NodeStatus, Pod
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import NOW, POLICY, vm

CLAIM = Claim(name="m-1", uid="uid-m-1", source_node="kwok-node-1", source_incarnation=0)
"""The claim of m-1 on a VM in its first incarnation."""
YES = Answers(slot=True, node="kwok-node-2", accepted=True)
SILENT = Node(
    ObjectMeta(name="kwok-node-1"), status=NodeStatus(conditions=(Condition(type="Ready", status="Unknown"),))
)
"""A node that stopped reporting."""


def at(seconds: float) -> datetime:
    """So many seconds after now."""
    return NOW + timedelta(seconds=seconds)


def move(name: str = "m-1", *, state: dict[str, Any] | None = None, **spec: Any) -> VirtualMachineMigration:
    """A migration of vm-1 that was created now, with the given status."""
    metadata = ObjectMeta(
        name=name, namespace="default", uid=f"uid-{name}", creation_timestamp=times.timestamp(NOW), generation=1
    )
    return VirtualMachineMigration(metadata, MigrationSpec(vm_name="vm-1", **spec), MigrationStatus(**(state or {})))


def failed(name: str, ended: datetime, reason: str = "RolledBack", **state: Any) -> VirtualMachineMigration:
    """A migration of the VM uid-1 that failed after its claim."""
    began = {"vm_uid": "uid-1", "start_timestamp": times.micro_timestamp(ended), "failure_reason": reason}
    end = {"phase": "Failed", "end_timestamp": times.micro_timestamp(ended)}
    return move(name, state={**began, **end, **state})


def on_node_1(**state: Any) -> VirtualMachine:
    """A VM that runs in its first incarnation."""
    found = VMStatus(phase="Running", node_name="kwok-node-1", pod_name="p", pod_uid="pod-uid-1-0", incarnation=0)
    return vm(status=msgspec.structs.replace(found, **state))


def decided(item: VirtualMachineMigration, of: VirtualMachine | None, *pods: Pod, **more: Any) -> Plan:
    """Decide now; every question is answered with yes."""
    plan = decide(View(item, of, pods, more.pop("now", NOW), answers=YES, **more), POLICY)
    assert isinstance(plan, Plan)
    return plan


def written(plan: Plan) -> MigrationStatus:
    """The one status that a plan writes."""
    [write] = [action for action in plan.actions if isinstance(action, WriteMigration)]
    return write.status


def claimed(
    incarnation: int = 1, *, claim: Claim = CLAIM, running: bool = True, deleted: bool = False
) -> VirtualMachine:
    """A VM that m-1 has claimed in incarnation 0, as of `incarnation`."""
    found = VMStatus(phase="Scheduling", incarnation=incarnation, migration=claim)
    return vm(status=found, running=running, deleted=deleted)


def in_phase(phase: str, since: float = 0.0, **spec: Any) -> VirtualMachineMigration:
    """m-1 in a phase after its claim, for so many seconds; each earlier phase began as long ago."""
    began = times.micro_timestamp(at(-since))
    names = ["Pending", "Terminating", "Scheduling", "Starting"]
    passed = names[: names.index(phase) + 1]
    state = {
        "phase": phase,
        "phase_transition_timestamps": tuple(PhaseTime(name, began) for name in passed),
        "start_timestamp": began,
        "source_node": "kwok-node-1",
        "source_pod": "source",
        "vm_uid": "uid-1",
    }
    return move(state=state, **spec)


def decided_with(item: VirtualMachineMigration | None, of: VirtualMachine, answers: Answers, **more: Any) -> Plan | Ask:
    """Decide with some answers."""
    return decide(View(item, of, more.pop("pods", ()), NOW, answers=answers, **more), POLICY)


def with_metadata(pod: Pod, **changes: Any) -> Pod:
    """A pod with other metadata."""
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, **changes))


def having(vm: VirtualMachine, condition: Condition) -> VirtualMachine:
    """A VM whose status has a condition."""
    return msgspec.structs.replace(vm, status=msgspec.structs.replace(vm.status, conditions=(condition,)))
