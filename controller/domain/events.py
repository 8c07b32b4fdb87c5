"""Which Kubernetes Events a change of a VM's status is worth: a pure function of before and after.

Guarantees: KubeVirt's reasons where it has one; an unchanged status is worth none.
"""

from __future__ import annotations

from controller.domain import status
from controller.domain.migration import MigrationPhase, Reason
from controller.domain.objects import MigrationStatus, VirtualMachineMigration, VMStatus
from controller.domain.status import Phase
from controller.kube.event import NORMAL, WARNING, Event
from controller.kube.meta import Condition


def created(pod: str) -> Event:
    """Tell that a launcher pod was created."""
    return Event(NORMAL, "SuccessfulCreate", "CreatePod", f"Created virtual machine pod {pod}")


def create_refused(pod: str, why: str) -> Event:
    """Tell that the API server refuses a launcher pod."""
    return Event(WARNING, "FailedCreate", "CreatePod", f"Cannot create virtual machine pod {pod}: {why}")


def deleted(pod: str, why: str) -> Event:
    """Tell that a launcher pod was deleted."""
    return Event(NORMAL, "SuccessfulDelete", "DeletePod", f"Deleted virtual machine pod {pod}: {why}")


def transitions(before: VMStatus, after: VMStatus) -> tuple[Event, ...]:
    """Tell what a status write changes: the phases that matter to a person, and warnings that begin."""
    found: list[Event] = []
    ready = _condition(after, status.READY)
    if after.phase != before.phase:
        match after.phase:
            case Phase.RUNNING:
                found.append(Event(NORMAL, "Started", "Start", f"The virtual machine runs on {after.node_name}"))
            case Phase.STOPPED:
                found.append(Event(NORMAL, "Stopped", "Stop", "The virtual machine is stopped"))
            case Phase.FAILED if ready is not None:
                found.append(Event(WARNING, ready.reason, "Observe", ready.message))
    if ready is not None and ready.reason == "Unschedulable" and _reason(before, status.READY) != "Unschedulable":
        found.append(Event(WARNING, "Unschedulable", "Schedule", ready.message))
    for kind in (status.RESTART_REQUIRED, status.INVALID_CONSUMPTION, status.INVALID_SPEC):
        condition = _condition(after, kind)
        if condition is not None and _condition(before, kind) is None and after.phase != Phase.FAILED:
            found.append(Event(WARNING, kind, "Observe", condition.message))
    return tuple(found)


def migration_transitions(migration: VirtualMachineMigration, after: MigrationStatus) -> tuple[Event, ...]:
    """Tell what a migration's status write changes, under KubeVirt's reasons."""
    before = migration.status
    vm = migration.spec.vm_name
    if after.phase != before.phase:
        match after.phase:
            case MigrationPhase.SUCCEEDED:
                way = f"from {after.source_node} to {after.target_node}"
                note = f"VM {vm} moved {way}, down for {after.downtime_seconds} s"
                return (Event(NORMAL, "SuccessfulMigration", "Migrate", note),)
            case MigrationPhase.FAILED if after.failure_reason == Reason.CANCELLED:
                return (Event(NORMAL, "SuccessfulAbortMigration", "Abort", f"Migration of VM {vm} was cancelled"),)
            case MigrationPhase.FAILED:
                return (Event(WARNING, "FailedMigration", "Migrate", f"{after.failure_reason}: {after.message}"),)
    stuck = after.phase == MigrationPhase.SCHEDULING and after.target_pod is not None
    known = before.phase == MigrationPhase.SCHEDULING and before.message is not None
    if stuck and after.message and not known:
        return (Event(WARNING, "migrationTargetPodUnschedulable", "Schedule", after.message),)
    reason = after.conditions[0].reason if after.conditions else ""
    if reason == Reason.BACKOFF and (not before.conditions or before.conditions[0].reason != reason):
        return (Event(WARNING, "MigrationBackoff", "Wait", after.message or ""),)
    return ()


def _condition(wanted: VMStatus, kind: str) -> Condition | None:
    return next((condition for condition in wanted.conditions if condition.type == kind), None)


def _reason(wanted: VMStatus, kind: str) -> str | None:
    condition = _condition(wanted, kind)
    return condition.reason if condition is not None else None
