"""The migration reconciler: claims VMs, follows their migrations, and never touches a pod.

Its keys are VMs, so that all migrations of one VM are decided together and never concurrently. Guarantees: every write
is guarded. The questions of `decide` are answered in its order, the slot first, so that a migration without a slot
costs no pass over the nodes. A reconcile that ends without a claim, even by an error, leaves the VM without a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from controller.domain import names
from controller.domain.copying.policy import DEFAULT_COPYING, CopyingPolicy
from controller.domain.migration import retention
from controller.domain.migration.decide import decide
from controller.domain.migration.limits import Limits
from controller.domain.migration.move import own, pod_of
from controller.domain.migration.phases import MigrationPhase
from controller.domain.migration.plan import Answers, ClaimVM, Plan, View
from controller.domain.objects import Strategy, VirtualMachine, VirtualMachineMigration
from controller.domain.vm.policy import LauncherPolicy
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube.kinds import Node
from controller.observe.caches import Caches
from controller.reconcilers.api import Api, Record
from controller.reconcilers.migration.coalescing import ProgressCoalescer
from controller.reconcilers.migration.copying import CallLater, CopyingMoves
from controller.reconcilers.migration.dry_run import DryRuns
from controller.reconcilers.migration.headroom import Headroom
from controller.reconcilers.migration.questions import Questions
from controller.reconcilers.migration.refusal_timers import RefusalTimers
from controller.reconcilers.migration.requests import ClaimWriter, HandOverWriter, Requests
from controller.reconcilers.migration.slots import MigrationSlots
from controller.reconcilers.migration.visit import Visit
from controller.reconcilers.vm.reconciler import CACHE_PATIENCE


class MigrationReconciler:
    """Reconciles the migrations of VMs by the VM's key.

    `claim` writes a VM's claim, `wake` queues a key that was granted a slot, or whose copying
    is to be decided about; `call_later` makes a call after so many seconds.
    """

    def __init__(
        self,
        client: Api,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        policy: LauncherPolicy,
        limits: Limits,
        *,
        record: Record,
        wake: Callable[[str, str], None],
        claim: ClaimWriter,
        hand_over: HandOverWriter,
        strategy: Strategy = Strategy.RECREATE,
        live: CopyingPolicy = DEFAULT_COPYING,
        call_later: CallLater,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._caches = caches
        self._nodes = nodes
        self._policy = policy
        self._strategy = strategy
        self._live = live
        self._copying = CopyingMoves(
            live.capacity,
            policy.speed,
            now=now,
            call_later=call_later,
            wake=lambda key: wake(key, "copying"),
        )
        self._now = now
        self._consistency = ConsistencyStore()
        self._coalescer = ProgressCoalescer(monotonic)
        self._refusal_timers = RefusalTimers(now)
        self._headroom = Headroom(client, caches, monotonic, freed=self._reconsider)
        self._dry_runs = DryRuns(client, policy, monotonic)
        self._slots = MigrationSlots(
            limits, lambda key: wake(key, "a slot is free"), monotonic, released=self._headroom.release
        )
        self._questions = Questions(
            client,
            nodes,
            policy,
            slots=self._slots,
            headroom=self._headroom,
            dry_runs=self._dry_runs,
            monotonic=monotonic,
        )
        self._requests = Requests(
            client, self._consistency, self._slots, record=record, claim=claim, hand_over=hand_over
        )

    def begin(self) -> None:
        """Count the existing claims and listen, once the caches are full and before the first reconcile."""
        for part in (self._coalescer, self._refusal_timers, self._headroom, self._dry_runs, self._questions):
            part.listen(self._caches)
        self._copying.listen(self._caches.values())

    def _reconsider(self) -> None:
        self._slots.reconsider()

    async def reconcile(self, key: str) -> Result:
        """Bring the migrations of one VM a step further."""
        namespace, _, _ = key.partition("/")
        caches = self._caches.get(namespace) or self._caches[None]
        vm = caches.vms.get(key)
        with self._slots.visit(vm, lambda: caches.vms.get(key)):
            if not self._consistency.ready(key):
                return Result(requeue_after=CACHE_PATIENCE)
            visit = Visit(key, caches, vm, caches.pods.by_index(key), caches.migrations.by_index(key))
            return await self._reconcile(visit)

    async def _reconcile(self, visit: Visit) -> Result:
        if visit.vm is None and any(not item.finished for item in visit.migrations):
            found = await self._requests.live_vm(visit.key)
            if found is not None:
                # Either the VM is outside of our selection, and so are its migrations, or the cache lags.
                return Result(retry=not visit.caches.vms.has_reached(found.metadata.resource_version))
        if visit.orphaned and (released := await self._release_orphan(visit)) is not None:
            return released
        again = await self._decide_each(visit)
        if again is None:
            return Result(retry=True)
        expired = retention.expired(visit.migrations, visit.vm, self._now())
        await self._requests.prune(expired, visit)
        if expired.again is not None:
            again.append(expired.again)
        return Result(requeue_after=min(again, default=None))

    async def _release_orphan(self, visit: Visit) -> Result | None:
        """Decide about a claim whose migration the cache does not have, and carry the plan out.

        None: it is a live one, and the VM reconciler cleans up; other migrations of the VM are told to wait.
        """
        plan = await self._decide(View(None, visit.vm, visit.pods, self._now()))
        if plan is None:
            return Result(retry=True)
        if not plan.actions and (claim := visit.the_vm.status.migration) is not None and claim.is_live:
            return None
        for action in plan.actions:
            if isinstance(action, ClaimVM):
                await self._requests.claim(action.claim, visit)
        return Result(requeue_after=plan.requeue_after)

    async def _decide_each(self, visit: Visit) -> list[float] | None:
        """Decide the migrations by rank; return when to reconcile again (seconds), or None if a guard failed."""
        again: list[float] = []
        for item in sorted(visit.migrations, key=lambda item: item.rank):
            if (pending := self._coalescer.due(item)) is not None:
                if not await self._requests.write(pending, item, visit):
                    return None
                continue
            plan = await self._decide(self._view(self._coalescer.known(item), visit))
            if plan is None:
                return None
            if plan.requeue_after is not None:
                again.append(plan.requeue_after)
            if (wait := self._coalescer.postpone(item, plan)) > 0:
                again.append(wait)
                continue
            if not await self._requests.carry_out(plan, item, visit):
                return None
            if plan.claims:
                break  # the others are decided when the cache shows the claim, or its end
        return again

    async def _decide(self, view: View) -> Plan | None:
        """Answer the decision's questions until it returns a plan; return None if a question has no answer now."""
        while not isinstance(decision := decide(view, self._policy), Plan):
            answers = await self._questions.answer(decision, view)
            if answers is None:
                return None
            view = msgspec.structs.replace(view, answers=answers)
        return decision

    def _view(self, item: VirtualMachineMigration, visit: Visit) -> View:
        source = self._nodes.get(f"/{_source_node(item, visit.vm)}")
        guessed = None not in self._caches
        view = View(
            item,
            visit.vm,
            visit.pods,
            self._now(),
            source_node=source,
            target_node=self._nodes.get(f"/{_target_node(item, visit)}"),
            nodes_known=self._nodes.filled,
            guessed=guessed,
            live=self._live,
            progress=self._copying.progress(item),
        )
        if visit.vm is None or item.spec.record_of is not None or item.status.phase != MigrationPhase.PENDING:
            return view
        return msgspec.structs.replace(
            view,
            history=visit.migrations,
            strategy=self._strategy,
            answers=Answers(refused=self._dry_runs.refused(item)),
            refused_since=self._refusal_timers.since(item),
        )


def _source_node(item: VirtualMachineMigration, vm: VirtualMachine | None) -> str:
    """Return the source node of a migration, or of a record."""
    if item.spec.record_of is not None:
        return item.metadata.annotations.get(names.SOURCE_NODE, "")
    if vm is None:
        return ""
    return (vm.status.migration.source_node if vm.status.migration is not None else vm.status.node_name) or ""


def _target_node(item: VirtualMachineMigration, visit: Visit) -> str | None:
    """Return the node that a pending migration names, or that of the target pod of a claimed one."""
    claim = visit.vm.status.migration if visit.vm is not None else None
    if claim is None or claim.uid != item.metadata.uid:
        return item.spec.target_node
    target = pod_of(own(visit.vm, visit.pods), claim.target)
    return target.spec.node_name if target is not None else None
