"""Records evictions: each pod of a VM that another client evicted gets a VirtualMachineMigration as its record.

Guarantees: each observed eviction is recorded once, under a name that derives from the pod's UID. A record never delays
its VM: one that the API server does not accept now stays pending, and is tried again beside the VM's own reconciles.
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
from controller.kube.verbs import CREATE_DEADLINE
from controller.reconcilers.api import Api, node_gone
from controller.reconcilers.vm.memory import Memory, Visit

_log = structlog.get_logger(__name__)


class EvictionRecorder:
    """Records evictions; those without a record yet are stored in the VM's state."""

    def __init__(self, client: Api, consistency: ConsistencyStore, memory: Memory) -> None:
        self._client = client
        self._consistency = consistency
        self._memory = memory

    def pod_deleted(self, pod: Pod) -> None:
        """Note a pod whose deletion the cache has just shown, if it was evicted."""
        reason, key = records.disruption(pod), vm_key(pod)
        if reason is not None and key is not None:
            known = self._memory[key]
            if known.unrecorded is None:
                known.unrecorded = {}
            known.unrecorded[pod.metadata.uid] = (pod, reason)

    async def record(self, visit: Visit) -> None:
        """Record every eviction of this VM's pods once; those that fail now are retried by the next reconcile."""
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
        # Stored before the requests are sent: evictions that the cache shows meanwhile are added to it.
        known.unrecorded = unrecorded
        for uid, (pod, reason) in tuple(unrecorded.items()):
            if await self._record(visit, vm, pod, reason):
                unrecorded.pop(uid, None)
        if not unrecorded:
            known.unrecorded = None

    async def _record(self, visit: Visit, vm: VirtualMachine, pod: Pod, reason: str) -> bool:
        """Record one eviction, unless it has a record; return False if it is still to be recorded."""
        store = visit.caches.migrations
        migrations = store.by_index(visit.key)
        recorded = any(migration.spec.record_of == pod.metadata.uid for migration in migrations)
        if recorded or not ownership.belongs_to(pod, vm) or records.moved_by_migration(vm, pod, migrations):
            return True
        if records.disruption(pod) is None and not await node_gone(self._client, pod.spec.node_name or ""):
            return True  # the cache of nodes lags: the scheduler used a new node before the cache showed it
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
