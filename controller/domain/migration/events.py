"""The Kubernetes Events of a migration's status write: a pure function of before and after.

Guarantees: KubeVirt's reasons where it has one. An unchanged status causes no Event.
"""

from __future__ import annotations

from controller.domain.migration import phases
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.objects import MigrationStatus, VirtualMachineMigration
from controller.kube.event import NORMAL, WARNING, Event


def transitions(migration: VirtualMachineMigration, after: MigrationStatus) -> tuple[Event, ...]:
    """Return the Events of a migration's status write."""
    note = phases.room_found(after)
    if note is None or phases.room_found(migration.status) is not None:
        return _of_phase(migration, after)
    return (Event(NORMAL, phases.ROOM_FOUND, "Preflight", note), *_of_phase(migration, after))


def _of_phase(migration: VirtualMachineMigration, after: MigrationStatus) -> tuple[Event, ...]:
    before = migration.status
    vm = migration.spec.vm_name
    if after.phase != before.phase:
        match after.phase:
            case MigrationPhase.SUCCEEDED:
                route = f"from {after.source_node} to {after.target_node}"
                note = f"VM {vm} moved {route}, down for {after.downtime_seconds} s"
                return (Event(NORMAL, "SuccessfulMigration", "Migrate", note),)
            case MigrationPhase.FAILED if after.failure_reason == Reason.CANCELLED:
                return (Event(NORMAL, "SuccessfulAbortMigration", "Abort", f"Migration of VM {vm} was cancelled"),)
            case MigrationPhase.FAILED:
                return (Event(WARNING, "FailedMigration", "Migrate", f"{after.failure_reason}: {after.message}"),)
    stuck = after.phase == MigrationPhase.SCHEDULING and after.target_pod is not None
    reported = before.phase == MigrationPhase.SCHEDULING and before.message is not None
    if stuck and after.message and not reported:
        return (Event(WARNING, "migrationTargetPodUnschedulable", "Schedule", after.message),)
    reason = after.conditions[0].reason if after.conditions else ""
    if reason == Reason.BACKOFF and (not before.conditions or before.conditions[0].reason != reason):
        return (Event(WARNING, "MigrationBackoff", "Wait", after.message or ""),)
    return ()
