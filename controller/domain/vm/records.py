"""Records: an eviction that somebody else ordered, told as the migration that it is.

Guarantees: a record's name is a function of the evicted pod's UID, so it cannot be made twice; `spec.recordOf` is
immutable, so it can never be carried out; the VM's next pod prefers any node but the one it was evicted from.
"""

from __future__ import annotations

from typing import Any, Final

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Pod

EVICTED: Final = "Evicted"
TAINTED: Final = "NoExecuteTaint"
NODE_LOST: Final = "NodeLost"
PREEMPTED: Final = "Preempted"
BY_KUBELET: Final = "TerminatedByKubelet"
_REASONS: Final = {
    "EvictionByEvictionAPI": EVICTED,
    "DeletionByTaintManager": TAINTED,
    "DeletionByPodGC": NODE_LOST,
    "PreemptionByScheduler": PREEMPTED,
    "TerminationByKubelet": BY_KUBELET,
}
"""The reasons of a pod's condition DisruptionTarget; any other is an eviction, too."""


def disruption(pod: Pod) -> str | None:
    """Return why a pod that goes was evicted; None if nobody evicted it."""
    condition = pod.status.condition("DisruptionTarget")
    if condition is None or condition.status != "True":
        return None
    return _REASONS.get(condition.reason, EVICTED)


def taken_back(pod: Pod) -> bool:
    """Whether a pod that was to be evicted is not any more, and lives on."""
    condition = pod.status.condition("DisruptionTarget")
    return condition is not None and condition.status != "True" and not pod.terminating and not pod.done


def moved_by_migration(vm: VirtualMachine, pod: Pod, migrations: tuple[VirtualMachineMigration, ...]) -> bool:
    """Whether a migration takes this pod of the VM away already, or did: one move has one record."""
    claim = vm.status.migration
    if claim is not None and ownership.incarnation(pod) == claim.source_incarnation:
        return True
    return any(
        other.spec.record_of is None
        and other.vm_uid == vm.metadata.uid
        and other.status.source_pod == pod.metadata.name
        for other in migrations
    )


def record(vm: VirtualMachine, pod: Pod, reason: str) -> dict[str, Any]:
    """Build the record of a pod's eviction."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": {
            "name": names.record_name(vm.metadata.name, pod.metadata.uid),
            "namespace": vm.metadata.namespace,
            "annotations": {
                names.SOURCE_NODE: pod.spec.node_name or "",
                names.SOURCE_POD: pod.metadata.name,
                names.SOURCE_INCARNATION: str(ownership.incarnation(pod) or 0),
                names.SOURCE_VM: vm.metadata.uid,
            },
        },
        "spec": {"vmName": vm.metadata.name, "reason": reason, "recordOf": pod.metadata.uid},
    }


def source_incarnation(migration: VirtualMachineMigration) -> int | None:
    """Return the life that a record says was ended; None if somebody made it who should not have."""
    return ownership.incarnation(migration, names.SOURCE_INCARNATION)


def avoided(migrations: tuple[VirtualMachineMigration, ...], vm_uid: str, incarnation: int) -> str | None:
    """Return the node that the pod of this life of a VM should rather not land on: its predecessor was evicted there.

    What befell another VM of the same name says nothing about this one.
    """
    for migration in migrations:
        told = migration.spec.record_of is not None and migration.vm_uid == vm_uid
        if told and source_incarnation(migration) == incarnation - 1:
            return migration.metadata.annotations.get(names.SOURCE_NODE) or None
    return None
