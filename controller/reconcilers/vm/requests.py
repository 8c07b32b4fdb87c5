"""The requests by which a VM's plan is carried out, each behind its guard.

Guarantees: a pod is created only if its name is free, and adopted only if it is ours, alive and of this incarnation. It
is deleted or patched only with the UID and resourceVersion that were decided on. A request with an unknown outcome is
remembered until it is settled. Every write is awaited in the caches before the next decision.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm import events, launcher, plan, status
from controller.engine.consistency import ConsistencyStore
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.kube.verbs import CREATE_DEADLINE
from controller.reconcilers.api import Api, Record, node_gone, patch_status
from controller.reconcilers.vm.create_failures import CreateFailures
from controller.reconcilers.vm.deletions import PendingDeletions
from controller.reconcilers.vm.expectations import CreateExpectations
from controller.reconcilers.vm.memory import Visit

_log = structlog.get_logger(__name__)


class Requests:
    """Carries out a plan's actions, and notes their outcome. `monotonic` is a clock in seconds."""

    def __init__(
        self,
        client: Api,
        consistency: ConsistencyStore,
        deletions: PendingDeletions,
        expectations: CreateExpectations,
        monotonic: Callable[[], float],
        *,
        record: Record,
    ) -> None:
        self._client = client
        self._consistency = consistency
        self._deletions = deletions
        self._expectations = expectations
        self._monotonic = monotonic
        self._record = record

    async def act(self, action: plan.Act, visit: Visit) -> bool:
        """Do one action; return False if its guard ended the plan."""
        match action:
            case plan.ConfirmVMGone():
                return await self._vm_gone(action, visit)
            case plan.ConfirmNodeGone():
                return await node_gone(self._client, action.name)
            case plan.DeletePod():
                await self._delete(action, visit)
            case plan.ConfirmPodGone():
                return await self._pod_gone(action.name, visit.vm)
            case plan.ConfirmTold():
                return await self._told(action, visit)
            case plan.CreatePod():
                return await self._create(action, visit)
            case plan.PatchPod():
                patched = await self._patch(action.pod, labels=action.labels, annotations=action.annotations)
                self._consistency.wrote(visit.key, visit.caches.pods, patched.metadata.resource_version)
        return True

    async def write_status(self, wanted: VMStatus, visit: Visit) -> str | None:
        """Replace the status of a VM that is still as the cache shows it; return its version, or None if it is deleted.

        Raises ConflictError if the VM changed meanwhile.
        """
        vm = visit.vm
        given = _number_given(vm.status, wanted)
        if given is not None:
            # Before the request: the watch may show the claim before its reply is here.
            visit.known.target_given = given
        try:
            written = await patch_status(self._client, VIRTUAL_MACHINES, vm.metadata, codec.merge_patch_of(wanted))
        except errors.ConflictError:
            visit.known.target_given = None if given is not None else visit.known.target_given
            raise
        if written is None:
            visit.known.deleted = vm.metadata.uid
            return None
        visit.known.pending = None
        self._consistency.wrote(visit.key, visit.caches.vms, written.metadata.resource_version)
        for found in events.transitions(vm.status, wanted):
            self._record(vm.metadata, found)
        return written.metadata.resource_version

    # --- live reads --------------------------------------------------------------------------------------

    async def _vm_gone(self, action: plan.ConfirmVMGone, visit: Visit) -> bool:
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, action.name, namespace=visit.namespace)
        except errors.NotFoundError:
            return True
        if vm.metadata.uid != action.uid:
            return True
        caches = visit.caches
        if caches.vms.get(visit.key) is None and caches.vms.has_reached(vm.metadata.resource_version):
            # The cache is up to date: this VM is outside of our selection, and its pods are not ours to delete. The
            # pods that we created for it get their labels back, so that the controller of its class sees them.
            for pod in caches.pods.by_index(visit.key):
                if _made_for(vm, pod):
                    await self._reveal(vm, pod)
            visit.known.foreign = True
        return False

    async def _pod_gone(self, name: str, vm: VirtualMachine) -> bool:
        """Whether a live read finds no pod of ours by this name; the watch does not show one without its label."""
        try:
            pod = await self._client.get(PODS, name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            return True
        if not ownership.belongs_to(pod, vm):
            return True
        await self._reveal(vm, pod)
        return False

    async def _told(self, action: plan.ConfirmTold, visit: Visit) -> bool:
        try:
            found = await self._client.get(MIGRATIONS, action.name, namespace=visit.namespace)
        except errors.NotFoundError:
            return True
        return found.metadata.uid != action.uid or found.finished

    async def _unchanged(self, visit: Visit, vm: VirtualMachine) -> bool:
        """Whether a live read finds the VM as the cache shows it, its class included."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, vm.metadata.name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            visit.known.deleted = vm.metadata.uid
            return False
        return found.metadata.uid == vm.metadata.uid and found.metadata.resource_version == vm.metadata.resource_version

    async def runs_as_before(self, pod: Pod) -> bool:
        """Whether a live read shows this pod on its node, running, ready, and with no deletion begun."""
        try:
            found = await self._client.get(PODS, pod.metadata.name, namespace=pod.metadata.namespace)
        except errors.NotFoundError:
            return False
        same = (found.metadata.uid, found.spec.node_name) == (pod.metadata.uid, pod.spec.node_name)
        return same and not found.terminating and status.runs_ready(found)

    # --- pods --------------------------------------------------------------------------------------------

    async def _create(self, action: plan.CreatePod, visit: Visit) -> bool:
        vm, known = visit.vm, visit.known
        if action.predecessor is not None and not await self._pod_gone(action.predecessor, vm):
            return False
        if _may_be_old(action, visit) and not await self._unchanged(visit, vm):
            return False
        failures = known.create_failures = known.create_failures or CreateFailures()
        try:
            pod = await self._client.create(
                PODS, action.body, namespace=vm.metadata.namespace, server_deadline=CREATE_DEADLINE
            )
        except errors.AlreadyExistsError:
            known.target_given = None
            return await self._adopt(action, visit, failures)
        except (errors.ForbiddenError, errors.InvalidError, errors.NotFoundError) as error:
            self._refuse(failures, vm, action.name, error.message)
            return False
        except errors.KubeError as error:
            if error.outcome_unknown:
                known.target_given = None
                self._expectations.expect(known)
            if (news := failures.failed(error, self._monotonic())) is not None:
                self._record(vm.metadata, events.create_refused(action.name, news))
            raise
        _log.debug("pod created", pod=action.name, incarnation=action.incarnation)
        known.create_failures = known.target_given = None
        self._consistency.wrote(visit.key, visit.caches.pods, pod.metadata.resource_version)
        self._record(vm.metadata, events.created(action.name))
        return True

    def _refuse(self, failures: CreateFailures, vm: VirtualMachine, pod: str, why: str) -> None:
        """Remember, for the status, why there is no pod; log it and record an Event if the reason is new."""
        if failures.refused(why):
            _log.warning("a pod is refused", pod=pod, error=why)
            self._record(vm.metadata, events.create_refused(pod, why))

    async def _adopt(self, action: plan.CreatePod, visit: Visit, failures: CreateFailures) -> bool:
        """Adopt the existing pod of this name, if it is ours: the reply to an earlier create was lost."""
        vm = visit.vm
        try:
            pod = await self._client.get(PODS, action.name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            return False
        if not ownership.belongs_to(pod, vm):
            why = f"pod {action.name} exists and does not belong to this VM; delete it, or give this VM another name"
            self._refuse(failures, vm, action.name, why)
            return False
        visit.known.create_failures = None
        await self._reveal(vm, pod)
        # The watch is about to show the pod; the next reconcile decides about it.
        return ownership.incarnation(pod) == action.incarnation and not pod.terminating and not pod.done

    async def _delete(self, action: plan.DeletePod, visit: Visit) -> None:
        metadata = action.pod.metadata
        _log.debug("deleting pod", pod=metadata.name, why=action.why)
        self._deletions.asked(action.pod)
        try:
            version = await self._client.delete(
                PODS,
                metadata.name,
                namespace=metadata.namespace,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
                grace_seconds=0 if action.force else None,
            )
        except errors.KubeError as error:
            self._deletions.failed(action.pod, error)
            if isinstance(error, errors.NotFoundError):
                return
            raise
        if version:
            self._deletions.settled(action.pod)
            self._consistency.wrote(visit.key, visit.caches.pods, version)
        if visit.view.vm is not None:
            self._record(visit.view.vm.metadata, events.deleted(metadata.name, action.why))

    async def _reveal(self, vm: VirtualMachine, pod: Pod) -> None:
        """Restore the labels of a pod of ours without which the watch does not show it."""
        hidden = {names.VM_LABEL, names.CONTROLLER_CLASS} & (changes := launcher.label_changes(vm, pod)).keys()
        if hidden:
            _log.info("giving a pod its labels back", pod=pod.metadata.name)
            await self._patch(pod, labels=changes, annotations={})

    async def _patch(self, pod: Pod, *, labels: dict[str, str | None], annotations: dict[str, str | None]) -> Pod:
        guard = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
        body = {"metadata": {**guard, "labels": labels, "annotations": annotations}}
        return await self._client.merge_patch(PODS, pod.metadata.name, body, namespace=pod.metadata.namespace)


def _may_be_old(action: plan.CreatePod, visit: Visit) -> bool:
    """Whether the cached VM may be stale, so that the VM may be deleted or of another class by now.

    A VM that the cache has just shown for the first time is fresh. A later incarnation waits for its predecessor to
    end, a VM with a written status waited for something, and a start or a retry may come at any time.
    """
    untouched = not visit.vm.status.conditions and visit.vm.status.phase != status.Phase.STOPPED
    return action.incarnation > 0 or not untouched or visit.known.create_failures is not None


def _made_for(vm: VirtualMachine, pod: Pod) -> bool:
    """Whether a controller created the pod for this VM, judged by its name: another client may have set the owner."""
    # The first is read from an annotation, which another client may have removed.
    incarnations = (ownership.incarnation(pod), vm.status.incarnation or 0)
    return ownership.belongs_to(pod, vm) and any(
        incarnation is not None and pod.metadata.name == launcher.name(vm, incarnation) for incarnation in incarnations
    )


def _number_given(before: VMStatus, after: VMStatus) -> int | None:
    """Return the number that a write gives to the target of a live move; None if it gives none."""
    old, new = before.migration, after.migration
    if new is None or not new.is_live:
        return None
    return None if old is not None and old.is_live and old.target == new.target else new.target
