"""VMs and pods for tests, with defaults for what a test does not set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMResources, VMSpec, VMStatus
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import launcher
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import Circumstances, Plan, View, WriteStatus
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Container, Pod, PodSpec, PodStatus
from controller.kube.meta import Condition, ObjectMeta, OwnerReference

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
T0 = "2026-01-15T10:29:45Z"
T1 = "2026-01-15T10:29:50Z"
POLICY = LauncherPolicy(reference=ReferenceNode.of(cpu="32", memory="256Gi"))


def vm(
    *,
    name: str = "vm-1",
    uid: str = "uid-1",
    cpu: Any = "0.15",
    memory: Any = "0.20",
    running: bool = True,
    status: VMStatus | None = None,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    deleted: bool = False,
    finalizers: tuple[str, ...] = (),
) -> VirtualMachine:
    """A VM as the cache shows it."""
    return VirtualMachine(
        metadata=ObjectMeta(
            name=name,
            namespace="default",
            uid=uid,
            resource_version="100",
            creation_timestamp=T0,
            deletion_timestamp=T1 if deleted else None,
            labels=labels or {},
            annotations=annotations or {},
            finalizers=finalizers,
        ),
        spec=VMSpec(resources=VMResources(cpu=cpu, memory=memory), running=running),
        status=status or VMStatus(),
    )


def pod(
    owner: VirtualMachine,
    incarnation: int = 0,
    *,
    phase: str = "Pending",
    node: str | None = None,
    ready: bool | None = None,
    unschedulable: str | None = None,
    terminating: bool = False,
    uid: str | None = None,
    drop_annotations: tuple[str, ...] = (),
    reason: str = "",
    message: str = "",
    conditions: tuple[Condition, ...] = (),
) -> Pod:
    """The launcher pod of one incarnation of a VM, as the cache shows it."""
    spec = launcher.requested(owner)
    body = launcher.manifest(owner, incarnation, spec, launcher.consumption(owner, spec).shares, POLICY)
    found = []
    if node is not None:
        found.append(Condition(type="PodScheduled", status="True", last_transition_time=T1))
    if unschedulable is not None:
        found.append(Condition(type="PodScheduled", status="False", reason="Unschedulable", message=unschedulable))
    if ready if ready is not None else phase == "Running":
        found.append(Condition(type="Ready", status="True", last_transition_time=T1))
    found.extend(conditions)
    annotations = {k: v for k, v in body["metadata"]["annotations"].items() if k not in drop_annotations}
    return Pod(
        metadata=ObjectMeta(
            name=body["metadata"]["name"],
            namespace="default",
            uid=uid or f"pod-{owner.metadata.uid}-{incarnation}",
            resource_version="200",
            creation_timestamp=T1,
            deletion_timestamp=T1 if terminating else None,
            labels=body["metadata"]["labels"],
            annotations=annotations,
            owner_references=(
                OwnerReference(
                    api_version=names.API_VERSION,
                    kind=names.VM_KIND,
                    name=owner.metadata.name,
                    uid=owner.metadata.uid,
                    controller=True,
                ),
            ),
        ),
        spec=PodSpec(
            node_name=node, containers=msgspec.convert(body["spec"]["containers"], tuple[Container, ...], strict=True)
        ),
        status=PodStatus(phase=phase, conditions=tuple(found), reason=reason, message=message),
    )


def running(owner: VirtualMachine, incarnation: int = 0) -> Pod:
    """A pod that runs on kwok-node-1."""
    return pod(owner, incarnation, phase="Running", node="kwok-node-1")


def plan_for(
    machine: VirtualMachine | None,
    *pods: Pod,
    create_expected: float = 0.0,
    refusal: str | None = None,
    seen: int | None = None,
    now: datetime = NOW,
    unplaced_for: float = 0.0,
) -> Plan:
    """Decide, with no circumstances but those given."""
    circumstances = Circumstances(
        now=now, create_expected=create_expected, create_refusal=refusal, seen=seen, unplaced_for=unplaced_for
    )
    return decide(View(machine, pods), POLICY, circumstances)


def published(plan: Plan) -> VMStatus:
    """The one status that a plan writes."""
    [write] = [action for action in plan.actions if isinstance(action, WriteStatus)]
    return write.status


def settled(machine: VirtualMachine, *pods: Pod) -> VirtualMachine:
    """The VM once no further status follows from its pods."""
    for _ in range(5):
        plan = plan_for(machine, *pods)
        writes = [action for action in plan.actions if isinstance(action, WriteStatus)]
        if not writes:
            return machine
        machine = msgspec.structs.replace(machine, status=writes[0].status)
    raise AssertionError("the status does not settle")


def condition(status: VMStatus, kind: str) -> Condition:
    """The first condition of a type."""
    return next(found for found in status.conditions if found.type == kind)


def history(status: VMStatus) -> list[str]:
    """The phases in a status's history, oldest first."""
    return [found.type.removeprefix("Phase") for found in status.conditions if found.type.startswith("Phase")]
