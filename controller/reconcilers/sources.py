"""Event sources of the reconcilers, which map a change of a VM, pod, node or migration to VM keys.

Guarantees: a change queues the key of every VM that it concerns, in O(1) for VMs and pods. The deletion of a node is
rare, and costs a pass over all pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from controller.domain.migration.phases import MigrationPhase
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.ownership import vm_key
from controller.engine.controller import Add
from controller.engine.store import Store, gone
from controller.kube.kinds import Node, Pod
from controller.observe.caches import Caches

_VM_KEYS: Final = "VMKeys"
_MIGRATION_KEYS: Final = "MigrationKeys"
"""Names of the two sources in the metrics of listeners."""


def feed(add: Add, caches: Mapping[str | None, Caches], nodes: Store[Node]) -> None:
    """Queue every VM that the caches show, by itself or as an owner of pods; then the VM of each later change."""
    for cache in caches.values():
        # In the order of the caches, so that the order is the same in every run.
        pods = (key for pod in cache.pods if (key := vm_key(pod)))
        for key in dict.fromkeys((*(vm.metadata.key for vm in cache.vms), *pods)):
            add(key, "start")
        cache.vms.listen(partial(_vm_changed, add), name=_VM_KEYS)
        cache.pods.listen(partial(_pod_changed, add), name=_VM_KEYS)
        nodes.listen(partial(_node_changed, add, cache.pods), name=_VM_KEYS)


def feed_migrations(add: Add, caches: Mapping[str | None, Caches]) -> None:
    """Queue every VM that has a migration or a claim; then, of the VMs of later changes, those that have one."""
    for cache in caches.values():
        moving = partial(_add_if_moving, add, cache)
        migrations = (migration.vm_key for migration in cache.migrations)
        for key in dict.fromkeys((*(vm.metadata.key for vm in cache.vms), *migrations)):
            moving(key, "start")
        cache.migrations.listen(partial(_migration_changed, add), name=_MIGRATION_KEYS)
        cache.vms.listen(partial(_vm_changed, moving), name=_MIGRATION_KEYS)
        cache.pods.listen(partial(_pod_changed, moving), name=_MIGRATION_KEYS)


def _migration_changed(add: Add, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
    migration = new or old
    if migration is not None:
        add(migration.vm_key, f"migration {_change(old, new)}")


def _add_if_moving(add: Add, cache: Caches, key: str, cause: str) -> None:
    vm = cache.vms.get(key)
    if (vm is not None and vm.status.migration is not None) or cache.migrations.by_index(key):
        add(key, cause)


def _vm_changed(add: Add, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
    vm = new or old
    if vm is not None:
        add(vm.metadata.key, f"VM {_change(old, new)}")


def _pod_changed(add: Add, old: Pod | None, new: Pod | None) -> None:
    pods = [pod for pod in (new, old) if pod is not None]
    if len(pods) > 1 and pods[0].metadata.owner_references == pods[1].metadata.owner_references:
        pods.pop()  # the common case: both have the same owner
    for pod in pods:
        if (key := vm_key(pod)) is not None:
            add(key, f"pod {_change(old, new)}")


def _node_changed(add: Add, pods: Store[Pod], old: Node | None, new: Node | None) -> None:
    if old is None or new is not None:
        return
    for pod in pods:
        key = vm_key(pod)
        if key is not None and pod.spec.node_name == old.metadata.name:
            add(key, "node deleted")


def _change(old: object | None, new: object | None) -> str:
    if old is None:
        return "added"
    return "changed" if new is not None else "deleted"


def no_longer_pending(
    old: VirtualMachineMigration | None, new: VirtualMachineMigration | None
) -> tuple[VirtualMachineMigration, ...]:
    """Return the migrations that a change has taken out of Pending: deleted, or in a later phase."""
    waits = new is not None and new.status.phase == MigrationPhase.PENDING
    return tuple(item for item in (gone(old, new), None if waits else new) if item is not None)
