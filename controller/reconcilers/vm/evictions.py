"""Tells evictions as migrations: a record for each pod of a VM that somebody else took away.

Guarantees: each eviction that was seen is recorded once, by a name that derives from the pod's UID; a record never
holds its VM up, and what the API server will not have now is kept and tried again beside the VM's own way.
"""

from __future__ import annotations

import structlog

from controller.domain import ownership
from controller.domain.objects import VirtualMachine
from controller.domain.ownership import vm_key
from controller.domain.resources import MIGRATIONS
from controller.domain.vm import records
from controller.engine.consistency import ConsistencyStore
from controller.kube import errors
from controller.kube.kinds import Pod
from controller.reconcilers.api import CREATE_DEADLINE, Api, node_gone
from controller.reconcilers.vm.memory import Memory, Visit

_log = structlog.get_logger(__name__)


class EvictionRecorder:
    """Records evictions; what is still to be told is remembered with the VM."""

    def __init__(self, client: Api, consistency: ConsistencyStore, memory: Memory) -> None:
        self._client = client
        self._consistency = consistency
        self._memory = memory

    def gone(self, pod: Pod) -> None:
        """Remember a pod that the cache has just lost, if it was evicted."""
        reason, key = records.disruption(pod), vm_key(pod)
        if reason is not None and key is not None:
            known = self._memory[key]
            if known.unrecorded is None:
                known.unrecorded = {}
            known.unrecorded[pod.metadata.uid] = (pod, reason)

    async def record(self, visit: Visit) -> None:
        """Tell every eviction of this VM's pods, once; what cannot be told now is kept."""
        vm, view, known = visit.view.vm, visit.view, visit.known
        if vm is None or vm.metadata.deletion_timestamp is not None or not vm.spec.running:
            known.unrecorded = None
            return
        unrecorded, known.unrecorded = known.unrecorded or {}, None
        for pod in view.pods:
            lost = records.NODE_LOST if pod.spec.node_name in view.lost_nodes else None
            if (reason := records.disruption(pod) or lost) is not None:
                unrecorded[pod.metadata.uid] = (pod, reason)
        if not unrecorded:
            return
        # Kept while requests are under way: what the cache loses meanwhile is added.
        known.unrecorded = unrecorded
        for uid, (pod, reason) in tuple(unrecorded.items()):
            if await self._record(visit, vm, pod, reason):
                unrecorded.pop(uid, None)
        if not unrecorded:
            known.unrecorded = None

    async def _record(self, visit: Visit, vm: VirtualMachine, pod: Pod, reason: str) -> bool:
        """Record one eviction, unless that is done; return False if it is still to be done."""
        store = visit.caches.migrations
        migrations = store.by_index(visit.key)
        recorded = any(migration.spec.record_of == pod.metadata.uid for migration in migrations)
        if recorded or not ownership.belongs_to(pod, vm) or records.moved_by_migration(vm, pod, migrations):
            return True
        if records.disruption(pod) is None and not await node_gone(self._client, pod.spec.node_name or ""):
            return True  # the cache of nodes is late: a new node was used before it was seen
        try:
            written = await self._client.create(
                MIGRATIONS,
                records.record(vm, pod, reason),
                namespace=vm.metadata.namespace,
                server_deadline=CREATE_DEADLINE,
            )
        except errors.AlreadyExistsError:
            return True
        except errors.KubeError as error:
            _log.warning("an eviction is not recorded", pod=pod.metadata.name, error=str(error))
            return isinstance(error, errors.ForbiddenError | errors.InvalidError | errors.NotFoundError)
        self._consistency.wrote(visit.key, store, written.metadata.resource_version)
        return True
