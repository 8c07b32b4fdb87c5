"""The VM reconciler: turns a plan into guarded requests, and remembers what no cache shows.

Guarantees: one reconcile reads the caches once, asks `decide` once, and carries the plan out in order until a
guard says no; every write is guarded; nothing is decided for a VM until the caches show the last write for it.
Cost is O(1) in the number of VMs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Final, TypeAlias

import msgspec
import structlog

from controller.domain import names, ownership
from controller.domain.objects import Claim, VirtualMachine, VMStatus
from controller.domain.ownership import vm_key
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm import events, launcher, status
from controller.domain.vm import plan as domain
from controller.domain.vm.decide import decide
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube import codec, errors, event
from controller.kube.kinds import Node, Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from controller.observe.caches import Caches
from controller.reconcilers.api import CREATE_DEADLINE, Api, node_gone, patch_status
from controller.reconcilers.vm.deferral import Deferral
from controller.reconcilers.vm.deletions import Deletions
from controller.reconcilers.vm.evictions import Evictions
from controller.reconcilers.vm.holds import Holds
from controller.reconcilers.vm.tries import Tries

_log = structlog.get_logger(__name__)

CACHE_PATIENCE: Final = 1.0
"""Seconds before a VM is looked at again whose own write is not in the cache yet, should no event bring it."""


Record: TypeAlias = Callable[[ObjectMeta, event.Event], None]
"""Takes an event about a VM; returns at once."""


def no_events(regarding: ObjectMeta, event: event.Event) -> None:
    """Record nothing."""


class VMReconciler:
    """Reconciles VMs by key. `caches` maps a namespace, or None for all, to its stores."""

    def __init__(
        self,
        client: Api,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        policy: launcher.LauncherPolicy,
        *,
        record: Record,
        rng: Random,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._caches = caches
        self._nodes = nodes
        self._policy = policy
        self._record = record
        self._rng = rng
        self._now = now
        self._consistency = ConsistencyStore()
        self._tries = Tries(monotonic)
        self._deletions = Deletions(monotonic)
        self._holds = Holds(now, monotonic)
        # VMs that exist but are not ours: another class's, or outside of our selection.
        self._foreign: set[str] = set()
        # UIDs of VMs that a write found gone, until the cache shows it, too.
        self._gone: dict[str, str] = {}
        self._deferral = Deferral(monotonic)
        # Which VM what is remembered of a key is about: another may have the name by now.
        self._about: dict[str, str] = {}
        # Of VMs that run: the version that told all there is to tell, and the pods it told of; until it comes back.
        self._echoes: dict[str, tuple[str, tuple[Pod, ...]]] = {}
        self._evictions = Evictions(client, self._consistency)

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Take a VM over that comes with a past: another installation may have sent a create moments ago."""
        if new is None:
            return
        self._foreign.discard(new.metadata.key)
        if old is None:
            self._holds.take_in(new)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is None and new is not None and (key := vm_key(new)) is not None:
            self._foreign.discard(key)  # whose it is has to be asked again
        if old is not None and new is None:
            self._evictions.gone(old)
            self._deletions.over(old)

    def begin(self) -> None:
        """Take over from the process before and listen, once the caches are full and before the first reconcile.

        That process may have sent creates moments before it died: VMs to which that may have happened keep their
        incarnation until such a create has settled.
        """
        for caches in self._caches.values():
            caches.vms.listen(self._vm_changed, name="VMReconciler")
            caches.pods.listen(self._pod_changed, name="VMReconciler")
            self._holds.take_over(caches.vms)

    async def reconcile(self, key: str) -> Result:
        """Bring one VM a step closer to its spec."""
        if not self._consistency.ready(key):
            return Result(requeue_after=CACHE_PATIENCE)
        namespace, _, _ = key.partition("/")
        caches = self._caches_of(namespace)
        pods = caches.pods.by_index(key)
        vm = self._vm(key, caches)
        view = self._view(vm, pods)
        if vm is not None and self._about.setdefault(key, vm.metadata.uid) != vm.metadata.uid:
            self._forget_namesake(key, vm)
        await self._evictions.record(key, view, caches.migrations)
        if vm is None and not pods:
            self._forget(key)
            return Result()
        if key in self._foreign:
            return Result()
        if (wait := self._deferral.remaining(key, view)) > 0:
            return Result(requeue_after=wait)
        if self._is_echo(key, view):
            return Result(retry=self._evictions.untold(key))
        plan = decide(view, self._policy, self._circumstances(key, caches))
        if key in self._tries and not plan.wants_pod:
            self._tries.moot(key)
        if view.asked:
            # One that was answered, or is over, since the view was taken is looked at again at once.
            again = min(self._deletions.under_way(pods).values(), default=0.0)
            plan = msgspec.structs.replace(plan, requeue_after=min(again, plan.requeue_after or again))
        return await self._carry_out(plan, key, view, namespace, caches)

    def _is_echo(self, key: str, view: domain.View) -> bool:
        """Whether all that is new is our own write, after which there is nothing left to do."""
        version, pods = self._echoes.pop(key, (None, ()))
        same = view.vm is not None and view.vm.metadata.resource_version == version and view.pods == pods
        return same and not view.lost_nodes

    async def claim(self, key: str, vm: VirtualMachine, claim: Claim | None) -> str | None:
        """Put a migration's claim on a VM, change it, or (None) take it away.

        What follows from that for the status goes into the same write, if it is no more than a write that follows.
        Returns the VM's new version, or None if it is gone. Raises ConflictError if it changed meanwhile.
        """
        namespace, _, _ = key.partition("/")
        caches = self._caches_of(namespace)
        claimed = msgspec.structs.replace(vm, status=msgspec.structs.replace(vm.status, migration=claim))
        wanted = claimed.status
        if self._consistency.ready(key):
            pods = caches.pods.by_index(key)
            match decide(self._view(claimed, pods), self._policy, self._circumstances(key, caches)).actions:
                case (domain.WriteStatus() as follows,):
                    wanted = follows.status
        return await self._write_status(wanted, key, vm, caches)

    async def _carry_out(
        self, plan: domain.Plan, key: str, view: domain.View, namespace: str, caches: Caches
    ) -> Result:
        """Do a plan's actions in order, up to a status that may wait or a guard that says no."""
        vm = view.vm
        wait = self._deferral.wait(key, vm, plan)
        for action in plan.actions:
            if isinstance(action, domain.WriteStatus):
                if vm is None:
                    raise AssertionError("a status needs a VM")
                if wait > 0 and action.status.pod_uid:
                    self._deferral.defer(key, vm, action.status)
                    return Result(requeue_after=wait)
                version = await self._write_status(action.status, key, vm, caches)
                alone = len(plan.actions) == 1 and plan.requeue_after is None and action.status.migration is None
                if version is not None and alone and action.status.phase == status.Phase.RUNNING:
                    self._echoes[key] = (version, view.pods)
            elif not await self._act(action, key, vm, namespace, caches):
                return Result(retry=key not in self._foreign)
        # A create that is tried again keeps its backoff, whatever is written about it.
        again = plan.tells_refusal or self._evictions.untold(key)
        return Result(retry=True) if again else Result(requeue_after=plan.requeue_after)

    def _vm(self, key: str, caches: Caches) -> VirtualMachine | None:
        """Return the VM as the cache shows it, unless we know better."""
        vm = caches.vms.get(key)
        if vm is not None and vm.metadata.uid == self._gone.get(key):
            return None
        self._gone.pop(key, None)
        return vm

    def _view(self, vm: VirtualMachine | None, pods: tuple[Pod, ...]) -> domain.View:
        return domain.View(vm, pods, self._lost_nodes(pods), frozenset(self._deletions.under_way(pods)))

    def _lost_nodes(self, pods: tuple[Pod, ...]) -> frozenset[str]:
        if not self._nodes.filled:
            return frozenset()
        names_of = (pod.spec.node_name for pod in pods)
        return frozenset(name for name in names_of if name is not None and self._nodes.get(f"/{name}") is None)

    def _caches_of(self, namespace: str) -> Caches:
        return self._caches.get(namespace) or self._caches[None]

    def _forget_namesake(self, key: str, vm: VirtualMachine) -> None:
        """Let a VM that was made anew inherit nothing of what was tried, seen or put off for the one before."""
        self._about[key] = vm.metadata.uid
        self._tries.forget(key)
        self._deferral.forget(key)

    def _forget(self, key: str) -> None:
        self._about.pop(key, None)
        self._foreign.discard(key)
        self._deferral.forget(key)
        self._tries.forget(key)
        self._echoes.pop(key, None)
        self._holds.forget(key)
        self._evictions.forget(key)

    def _circumstances(self, key: str, caches: Caches) -> domain.Circumstances:
        return domain.Circumstances(
            now=self._now(),
            jitter=self._rng.random(),
            hold=self._holds.remaining(key),
            create_refusal=self._tries.why(key),
            seen=self._deferral.life_seen(key),
            migrations=caches.migrations.by_index(key),
        )

    async def _act(
        self, action: domain.Act, key: str, vm: VirtualMachine | None, namespace: str, caches: Caches
    ) -> bool:
        """Do one action; return False if its guard ended the plan."""
        match action:
            case domain.ConfirmVMGone():
                return await self._vm_gone(action, key, namespace, caches)
            case domain.ConfirmNodeGone():
                return await node_gone(self._client, action.name)
            case domain.DeletePod():
                await self._delete(action, key, vm, caches)
                return True
            case _ if vm is None:
                raise AssertionError(f"{action} needs a VM")
            case domain.ConfirmPodGone():
                return await self._pod_gone(action.name, vm)
            case domain.CreatePod():
                return await self._create(action, key, vm, caches)
            case domain.PatchPod():
                patched = await self._patch(action.pod, labels=action.labels, annotations=action.annotations)
                self._consistency.wrote(key, caches.pods, patched.metadata.resource_version)
                return True

    async def _vm_gone(self, action: domain.ConfirmVMGone, key: str, namespace: str, caches: Caches) -> bool:
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, action.name, namespace=namespace)
        except errors.NotFoundError:
            return True
        if vm.metadata.uid != action.uid:
            return True
        if caches.vms.get(key) is None and caches.vms.has_reached(vm.metadata.resource_version):
            # The cache is not late: this VM is outside of what we watch, and so are its pods, to us, except what we
            # made for it before we knew: whether that counts is for its new class to say.
            for pod in caches.pods.by_index(key):
                if _made_for(vm, pod):
                    await self._reveal(vm, pod)
            self._foreign.add(key)
        return False

    async def _pod_gone(self, name: str, vm: VirtualMachine) -> bool:
        """Look past the cache: a pod of ours whose label was edited away lives on unseen."""
        try:
            pod = await self._client.get(PODS, name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            return True
        if not ownership.belongs_to(pod, vm):
            return True
        await self._reveal(vm, pod)
        return False

    def _may_be_old(self, action: domain.CreatePod, key: str, vm: VirtualMachine) -> bool:
        """Whether what we know of the VM may be old, so that it may be gone or another class's by now.

        It is not when the VM was just seen for the first time. Later lives wait for their predecessor to end, a VM
        whose status was written waited for something, and a start or another try may come at any time.
        """
        untouched = not vm.status.conditions and vm.status.phase != status.Phase.STOPPED
        return action.incarnation > 0 or not untouched or key in self._tries

    async def _unchanged(self, key: str, vm: VirtualMachine) -> bool:
        """Look past the cache: whether the VM is as we know it, our class's among the rest."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, vm.metadata.name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            self._gone[key] = vm.metadata.uid
            return False
        return found.metadata.uid == vm.metadata.uid and found.metadata.resource_version == vm.metadata.resource_version

    async def _reveal(self, vm: VirtualMachine, pod: Pod) -> None:
        """Give a pod of ours the labels back without which the watch does not see it."""
        hidden = {names.VM_LABEL, names.CONTROLLER_CLASS} & (changes := launcher.label_changes(vm, pod)).keys()
        if hidden:
            _log.info("giving a pod its labels back", pod=pod.metadata.name)
            await self._patch(pod, labels=changes, annotations={})

    async def _create(self, action: domain.CreatePod, key: str, vm: VirtualMachine, caches: Caches) -> bool:
        if action.predecessor is not None and not await self._pod_gone(action.predecessor, vm):
            return False
        if self._may_be_old(action, key, vm) and not await self._unchanged(key, vm):
            return False
        self._tries.sent(key)
        try:
            pod = await self._client.create(
                PODS, action.body, namespace=vm.metadata.namespace, server_deadline=CREATE_DEADLINE
            )
        except errors.AlreadyExistsError:
            return await self._adopt(action, key, vm)
        except (errors.ForbiddenError, errors.InvalidError, errors.NotFoundError) as error:
            self._refuse(key, vm, action.name, error.message)
            return False
        except errors.KubeError as error:
            if error.outcome_unknown:
                self._holds.hold(key)
            if (news := self._tries.failed(key, error)) is not None:
                self._record(vm.metadata, events.create_refused(action.name, news))
            raise
        _log.debug("pod created", pod=action.name, incarnation=action.incarnation)
        self._tries.forget(key)
        self._consistency.wrote(key, caches.pods, pod.metadata.resource_version)
        self._record(vm.metadata, events.created(action.name))
        return True

    def _refuse(self, key: str, vm: VirtualMachine, pod: str, why: str) -> None:
        """Remember why there is no pod, for the status; tell it when it is news."""
        if self._tries.refused(key, why):
            _log.warning("a pod is refused", pod=pod, error=why)
            self._record(vm.metadata, events.create_refused(pod, why))

    async def _adopt(self, action: domain.CreatePod, key: str, vm: VirtualMachine) -> bool:
        """Somebody has the name: it is ours from a create whose reply was lost, or a stranger's."""
        try:
            pod = await self._client.get(PODS, action.name, namespace=vm.metadata.namespace)
        except errors.NotFoundError:
            return False
        if not ownership.belongs_to(pod, vm):
            why = f"pod {action.name} exists and does not belong to this VM; delete it, or give this VM another name"
            self._refuse(key, vm, action.name, why)
            return False
        self._tries.forget(key)
        await self._reveal(vm, pod)
        # The watch shows it in a moment; what it is worth is decided then.
        return ownership.incarnation(pod) == action.incarnation and not pod.terminating and not pod.done

    async def _delete(self, action: domain.DeletePod, key: str, vm: VirtualMachine | None, caches: Caches) -> None:
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
            self._deletions.over(action.pod)
            self._consistency.wrote(key, caches.pods, version)
        if vm is not None:
            self._record(vm.metadata, events.deleted(metadata.name, action.why))

    async def _patch(self, pod: Pod, *, labels: dict[str, str | None], annotations: dict[str, str]) -> Pod:
        guard = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
        body = {"metadata": {**guard, "labels": labels, "annotations": annotations}}
        return await self._client.merge_patch(PODS, pod.metadata.name, body, namespace=pod.metadata.namespace)

    async def _write_status(self, wanted: VMStatus, key: str, vm: VirtualMachine, caches: Caches) -> str | None:
        """Replace the status of a VM that is still as the cache shows it; return its version, or None if it is gone."""
        written = await patch_status(self._client, VIRTUAL_MACHINES, vm.metadata, codec.merge_patch_of(wanted))
        if written is None:
            self._gone[key] = vm.metadata.uid
            return None
        self._deferral.told(key)
        self._consistency.wrote(key, caches.vms, written.metadata.resource_version)
        for found in events.transitions(vm.status, wanted):
            self._record(vm.metadata, found)
        return written.metadata.resource_version


def _made_for(vm: VirtualMachine, pod: Pod) -> bool:
    """Whether a controller made the pod for this VM, and not somebody who wants it to look so: its name tells."""
    # The first is an annotation, which may have been taken away.
    lives = (ownership.incarnation(pod), vm.status.incarnation or 0)
    return ownership.belongs_to(pod, vm) and any(
        life is not None and pod.metadata.name == launcher.name(vm, life) for life in lives
    )
