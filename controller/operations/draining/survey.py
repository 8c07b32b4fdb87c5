"""The state of the drain of a node: which VMs have to move, which have moved, and which failed to.

Guarantees: pure; a survey costs time in the number of the node's objects and the drain's migrations, not in the size
of the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter

from controller.domain import ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.vm.status import Phase
from controller.engine.store import Store
from controller.kube.kinds import Pod
from controller.operations import migrations as moves


def by_node_of_vm(vm: VirtualMachine) -> str | None:
    """Index of the VMs' store: the node that a VM's status names."""
    return vm.status.node_name


def by_node_of_pod(pod: Pod) -> str | None:
    """Index of the pods' store: the pod's node."""
    return pod.spec.node_name


def by_vm(migration: VirtualMachineMigration) -> str:
    """Index of the migrations' store: the VM's key."""
    return migration.vm_key


@dataclass(frozen=True, slots=True)
class Caches:
    """The stores of a drain, each with its index above."""

    vms: Store[VirtualMachine]
    pods: Store[Pod]
    migrations: Store[VirtualMachineMigration]


@dataclass(frozen=True, slots=True)
class Survey:
    """The state of a drain. VMs are named `namespace/name`."""

    to_move: Mapping[str, VirtualMachine]
    """VMs that need a migration, by name and in order."""
    on_node: frozenset[str]
    """VMs whose pod is on the node."""
    there: frozenset[str]
    """These, and the VMs whose status names the node."""
    in_progress: frozenset[str]
    """VMs whose migration of ours has not ended, or may exist although its create was not confirmed."""
    moved: frozenset[str]
    failed: Mapping[str, str]
    """VMs whose migration of ours failed or was refused, and why."""

    @property
    def settled(self) -> bool:
        """Whether no VM is left that could still move."""
        return not self.to_move and not self.in_progress and self.on_node <= self.failed.keys()

    @property
    def left(self) -> tuple[str, ...]:
        """VMs that the drain still waits for, in order."""
        return tuple(sorted((self.on_node | self.in_progress | self.to_move.keys()) - self.failed.keys()))


Ours = Mapping[str, VirtualMachineMigration | None]
"""The newest state of our migration of each VM; None if it was deleted."""


def survey(
    node: str,
    caches: Caches,
    *,
    ours: Ours,
    refused: Mapping[str, str],
    unanswered: Mapping[str, str],
) -> Survey:
    """Return the state of the drain of a node.

    `refused` maps the VMs whose migration the API server refused to its message; `unanswered` maps the VMs whose create
    has an unknown outcome to the error.
    """
    ended = {key: migration for key, migration in ours.items() if migration is None or migration.finished}
    on_node = frozenset(pods_on(node, caches))
    there = on_node | {vm.metadata.key for vm in caches.vms.by_index(node)}
    # A VM whose migration was refused may still be moved by a migration that is not ours.
    stuck = {key: why for key, why in refused.items() if key in there and another(key, caches) is None}
    failed = stuck | {
        key: "its migration was deleted" if migration is None else moves.failure(migration)
        for key, migration in ended.items()
        if migration is None or migration.status.phase == "Failed"
    }
    to_move = {
        key: vm
        for key, vm in sorted(((vm.metadata.key, vm) for vm in caches.vms.by_index(node)), key=itemgetter(0))
        if vm.status.phase == Phase.RUNNING
        and wanted(vm)
        and key not in ours
        and key not in refused
        and another(key, caches) is None
    }
    in_doubt = unanswered.keys() - ours.keys() - to_move.keys()
    return Survey(
        to_move=to_move,
        on_node=on_node,
        there=there,
        in_progress=frozenset((ours.keys() - ended.keys()) | in_doubt),
        moved=frozenset(ended.keys() - failed.keys()),
        # A VM that was stopped or deleted meanwhile is off the node, too, and did not fail.
        failed={key: why for key, why in failed.items() if wanted(caches.vms.get(key))},
    )


def wanted(vm: VirtualMachine | None) -> bool:
    """Whether a VM exists, is not being deleted, and is to run."""
    return vm is not None and vm.spec.running and vm.metadata.deletion_timestamp is None


def another(key: str, caches: Caches) -> VirtualMachineMigration | None:
    """Return a migration of the VM that is in progress."""
    found = caches.migrations.by_index(key)
    return next((item for item in found if not item.finished and item.spec.record_of is None), None)


def pods_on(node: str, caches: Caches) -> dict[str, Pod]:
    """Return the launcher pods on the node that have not ended, by their VM's key."""
    return {
        f"{pod.metadata.namespace}/{owner.name}": pod
        for pod in caches.pods.by_index(node)
        if not pod.done and (owner := ownership.owner(pod)) is not None
    }
