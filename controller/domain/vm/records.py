"""Records of evictions: a VirtualMachineMigration for each pod that another client evicted.

Guarantees: a record's name derives from the evicted pod's UID, so there is one per eviction. `spec.recordOf` is
immutable, so a record is never carried out as a migration. The VM's next pod prefers any node but its last.
"""

from __future__ import annotations

from typing import Any, Final

from controller.domain import names, ownership
from controller.domain.objects import Strategy, VirtualMachine, VirtualMachineMigration
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
"""The reasons of a pod's condition DisruptionTarget; any other counts as an eviction, too."""


def disruption(pod: Pod) -> str | None:
    """Return the reason of a pod's eviction; None if it was not evicted."""
    condition = pod.status.condition("DisruptionTarget")
    if condition is None or condition.status != "True":
        return None
    return _REASONS.get(condition.reason, EVICTED)


def withdrawn(pod: Pod) -> bool:
    """Whether the eviction of a pod was withdrawn, and the pod keeps running."""
    condition = pod.status.condition("DisruptionTarget")
    return condition is not None and condition.status != "True" and not pod.terminating and not pod.done


def moved_by_migration(vm: VirtualMachine, pod: Pod, migrations: tuple[VirtualMachineMigration, ...]) -> bool:
    """Whether a migration moves, or moved, the VM away from this pod: such a move needs no record as well."""
    claim, number = vm.status.migration, ownership.incarnation(pod)
    if claim is not None and claim.is_live:
        return number != vm.status.incarnation  # the other end is not the VM
    if claim is not None and number == claim.source_incarnation:
        return True
    return any(
        other.spec.record_of is None
        and other.vm_uid == vm.metadata.uid
        and other.status.source_pod == pod.metadata.name
        and not (other.status.strategy == Strategy.LIVE and other.status.phase == "Failed")
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
    """Return the incarnation that the eviction ended; None if the record was not created by the controller."""
    return ownership.incarnation(migration, names.SOURCE_INCARNATION)


def avoided(migrations: tuple[VirtualMachineMigration, ...], vm_uid: str, previous: int | None) -> str | None:
    """Return the node from which the previous incarnation's pod was evicted, which the next pod avoids if it can.

    Records of a namesake do not count.
    """
    for migration in migrations:
        is_record = migration.spec.record_of is not None and migration.vm_uid == vm_uid
        if is_record and previous is not None and source_incarnation(migration) == previous:
            return migration.metadata.annotations.get(names.SOURCE_NODE) or None
    return None
