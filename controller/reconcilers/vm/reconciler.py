"""The VM reconciler: decides about one VM at a time, and carries the plan out.

Guarantees: one reconcile reads the caches once, calls `decide` once, and carries the plan out in order until a guard
fails. Every write is guarded. Nothing is decided for a VM until the caches show the controller's last write for it.
A reconcile costs O(1) in the number of VMs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Final

import msgspec

from controller.domain import ownership
from controller.domain.objects import Claim, HandOver, VirtualMachine
from controller.domain.ownership import vm_key
from controller.domain.vm import live, status
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import Circumstances, ConfirmPodGone, Plan, View, WriteStatus
from controller.domain.vm.policy import LauncherPolicy
from controller.domain.vm.state import VMState
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube import times
from controller.kube.kinds import Node, Pod
from controller.observe.caches import Caches
from controller.reconcilers.api import Api, Record
from controller.reconcilers.vm.coalescing import StatusCoalescer
from controller.reconcilers.vm.create_failures import CreateFailures
from controller.reconcilers.vm.deletions import PendingDeletions
from controller.reconcilers.vm.evictions import EvictionRecorder
from controller.reconcilers.vm.expectations import CreateExpectations
from controller.reconcilers.vm.memory import Known, Memory, Visit
from controller.reconcilers.vm.requests import Requests
from controller.reconcilers.vm.schedulers import Schedulers

CACHE_PATIENCE: Final = 1.0
"""Seconds after which a VM is reconciled again if the cache does not show our last write yet, and no event comes."""


class VMReconciler:
    """Reconciles VMs by key. `caches` maps a namespace, or None for all, to its stores."""

    def __init__(
        self,
        client: Api,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        policy: LauncherPolicy,
        *,
        record: Record,
        rng: Random,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._caches = caches
        self._nodes = nodes
        self._policy = policy
        self._rng = rng
        self._now = now
        self._memory: Memory = defaultdict(Known)
        self._consistency = ConsistencyStore()
        self._deletions = PendingDeletions(monotonic)
        self._expectations = CreateExpectations(self._memory, now, monotonic)
        self._schedulers = Schedulers(monotonic)
        self._coalescer = StatusCoalescer(self._schedulers, monotonic)
        self._evictions = EvictionRecorder(client, self._consistency, self._memory)
        self._requests = Requests(
            client, self._consistency, self._deletions, self._expectations, monotonic, record=record
        )

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Follow a VM; of one that is new to the cache, another installation may have sent a create just before."""
        if new is None:
            return
        self._ask_anew(new.metadata.key)
        if old is None:
            self._expectations.take_in(new)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._schedulers.pod_changed(old, new)
        if old is None and new is not None and (key := vm_key(new)) is not None:
            self._ask_anew(key)
        if old is not None and new is None:
            self._evictions.pod_deleted(old)
            self._deletions.settled(old)

    def _ask_anew(self, key: str) -> None:
        """Clear `foreign`: the VM or a pod of it changed, so its owner has to be checked again."""
        if (known := self._memory.get(key)) is not None:
            known.foreign = False

    def begin(self) -> None:
        """Take over from the previous process and listen, once the caches are full and before the first reconcile.

        That process may have sent creates just before it died. The incarnation of the VMs concerned stays until such a
        create has settled.
        """
        for caches in self._caches.values():
            caches.vms.listen(self._vm_changed, name="VMReconciler")
            caches.pods.listen(self._pod_changed, name="VMReconciler")
            self._expectations.take_over(caches.vms)

    async def reconcile(self, key: str) -> Result:
        """Bring one VM a step closer to its spec."""
        if not self._consistency.ready(key):
            return Result(requeue_after=CACHE_PATIENCE)
        visit = self._visit(key)
        _note_target(visit)
        await self._evictions.record(visit)
        if (rest := self._at_rest(visit)) is not None:
            return rest
        plan = decide(visit.view, self._policy, self._circumstances(visit))
        if visit.known.create_failures is not None and not plan.wants_pod:
            visit.known.create_failures = CreateFailures()  # no pod is wanted, so earlier failures do not count
        if visit.view.asked:
            # A deletion that was settled since the view was taken is decided again at once.
            again = min(self._deletions.in_flight(visit.view.pods).values(), default=0.0)
            plan = msgspec.structs.replace(plan, requeue_after=min(again, plan.requeue_after or again))
        return await self._carry_out(plan, visit)

    def _visit(self, key: str) -> Visit:
        """Read a VM and its pods from the caches; a VM that a write did not find any more counts as deleted."""
        namespace, _, _ = key.partition("/")  # not by `_caches_of`: one call less in each reconcile
        caches = self._caches.get(namespace) or self._caches[None]
        pods = caches.pods.by_index(key)
        vm, known = caches.vms.get(key), self._memory[key]
        if vm is not None and vm.metadata.uid == known.deleted:
            vm = None
        else:
            known.deleted = None
        if vm is not None and known.about != vm.metadata.uid:
            if known.about is not None:
                # A VM with a new UID inherits no failure, no number and no pending status of its predecessor.
                known.create_failures = known.target_given = known.target_seen = None
                self._coalescer.forget(key, known)
            known.about = vm.metadata.uid
        return Visit(key, namespace, caches, known, self._view(vm, pods))

    def _caches_of(self, key: str) -> tuple[str, Caches]:
        """Return the namespace of a key, and its caches."""
        namespace, _, _ = key.partition("/")
        return namespace, self._caches.get(namespace) or self._caches[None]

    def _at_rest(self, visit: Visit) -> Result | None:
        """Return the result for a VM about which there is nothing to decide; None if there may be something.

        There are four cases: the VM and its pods no longer exist; it is not ours; its status is pending, and its pod is
        starting as before; the only change is our own write, after which nothing was left to do.
        """
        known, view = visit.known, visit.view
        if view.vm is None and not view.pods:
            self._forget(visit)
            return Result()
        if known.foreign:
            return Result()
        if known.pending is not None and (wait := self._coalescer.remaining(visit)) > 0:
            return Result(requeue_after=wait)
        own_write, known.own_write = known.own_write, None
        if own_write is not None and view.vm is not None and not view.lost_nodes:
            version, pods = own_write
            if view.vm.metadata.resource_version == version and view.pods == pods:
                return Result(retry=known.unrecorded is not None)
        return None

    def _forget(self, visit: Visit) -> None:
        """Drop the state of a VM that no longer exists; `deleted` stays until the cache shows the deletion."""
        self._coalescer.forget(visit.key, visit.known)
        del self._memory[visit.key]
        if visit.known.deleted is not None:
            self._memory[visit.key] = Known(deleted=visit.known.deleted)

    def _view(self, vm: VirtualMachine | None, pods: tuple[Pod, ...]) -> View:
        return View(vm, pods, self._lost_nodes(pods), frozenset(self._deletions.in_flight(pods)))

    def _lost_nodes(self, pods: tuple[Pod, ...]) -> frozenset[str]:
        lost: set[str] = set()
        if self._nodes.filled:
            for pod in pods:
                name = pod.spec.node_name
                if name is not None and self._nodes.get(f"/{name}") is None:
                    lost.add(name)
        return frozenset(lost)

    def _circumstances(self, visit: Visit) -> Circumstances:
        known, unplaced_for = visit.known, 0.0
        for pod in visit.view.pods:
            if pod.spec.node_name is None and status.unnoticed(pod):
                unplaced_for = max(unplaced_for, self._schedulers.waited(pod))
        return Circumstances(
            now=self._now(),
            jitter=self._rng.random(),
            create_expected=self._expectations.remaining(known),
            create_refusal=known.create_failures.reported if known.create_failures is not None else None,
            unplaced_for=unplaced_for,
            target_given=known.target_given,
            target_seen=known.target_seen,
            seen=known.pending.status.incarnation if known.pending is not None else None,
            migrations=visit.caches.migrations.by_index(visit.key),
        )

    async def _carry_out(self, plan: Plan, visit: Visit) -> Result:
        """Do a plan's actions in order, up to a status that stays pending or a guard that fails."""
        wait = self._coalescer.wait(visit, plan)
        for action in plan.actions:
            if isinstance(action, WriteStatus):
                if wait > 0 and action.status.pod_uid:
                    self._coalescer.postpone(visit, action.status)
                    return Result(requeue_after=min(wait, plan.requeue_after or wait))
                version = await self._requests.write_status(action.status, visit)
                alone = len(plan.actions) == 1 and plan.requeue_after is None and action.status.migration is None
                if version is not None and alone and action.status.phase == status.Phase.RUNNING:
                    visit.known.own_write = (version, visit.view.pods)
            elif not await self._requests.act(action, visit):
                return Result(retry=not visit.known.foreign)
        # The backoff of a create that is retried continues, even if a status was written about it.
        again = plan.reports_refusal or visit.known.unrecorded is not None
        return Result(retry=True) if again else Result(requeue_after=plan.requeue_after)

    async def claim(self, key: str, vm: VirtualMachine, claim: Claim | None) -> str | None:
        """Put a migration's claim on a VM, change it, or (None) remove it.

        If the claimed VM would next get a status write and nothing else, that status goes into the same write.
        Returns the VM's new version, or None if it is deleted. Raises ConflictError if it changed meanwhile.
        """
        namespace, caches = self._caches_of(key)
        given = claim.target if claim is not None and claim.is_live else None
        remembered = vm.status.last_incarnation
        if given is not None:
            remembered = max(remembered or 0, given)  # in the same write as the claim that gives it out
        claimed = msgspec.structs.replace(
            vm, status=msgspec.structs.replace(vm.status, migration=claim, last_incarnation=remembered)
        )
        # The VM may have been deleted meanwhile: its state must not come into being again.
        visit = Visit(key, namespace, caches, self._memory.get(key, Known()), View(vm))
        wanted = claimed.status
        if self._consistency.ready(key):
            view = self._view(claimed, caches.pods.by_index(key))
            circumstances = self._circumstances(visit)
            if given is not None:
                circumstances = msgspec.structs.replace(circumstances, target_given=given)
            actions = decide(view, self._policy, circumstances).actions
            writes = [action for action in actions if isinstance(action, WriteStatus)]
            alone = len(actions) == 1 or given is not None
            if len(writes) == 1 and alone and not any(isinstance(action, ConfirmPodGone) for action in actions):
                wanted = writes[0].status
        return await self._requests.write_status(wanted, visit)

    async def hand_over(self, key: str, vm: VirtualMachine, claim: Claim, target: Pod, downtime: float) -> str | None:
        """Hand a claimed VM over to its target pod, which a last live read has to show as it was decided on.

        `claim` is as it is from then on; the guest was stopped for `downtime` seconds.

        Returns the VM's new version, or None if the pod has changed or the VM is deleted. Raises ConflictError if the
        VM changed meanwhile, so that a late hand-over never undoes an abort.
        """
        namespace, caches = self._caches_of(key)
        if not await self._requests.runs_as_before(target):
            return None
        pods = caches.pods.by_index(key)
        visit = Visit(key, namespace, caches, self._memory.get(key, Known()), View(vm, pods))
        state = VMState(vm, self._view(vm, pods), self._policy, self._circumstances(visit))
        record = HandOver(claim.uid, times.micro_timestamp(self._now()), f"{downtime:.3f}")
        wanted = live.handed_over(state, claim, target, record)
        return await self._requests.write_status(wanted.status, visit)


def _note_target(visit: Visit) -> None:
    """Remember that the cache has shown the target pod of a live move: if it is gone later, it was deleted."""
    vm = visit.view.vm
    claim = vm.status.migration if vm is not None else None
    if vm is None or claim is None or not claim.is_live:
        return
    if any(ownership.belongs_to(pod, vm) and ownership.incarnation(pod) == claim.target for pod in visit.view.pods):
        visit.known.target_seen = claim.target
