"""The migration reconciler: claims VMs, follows their way, and never touches a pod.

Its keys are VMs, so that all migrations of one VM are decided together and never two at once. Guarantees: every
write is guarded; what `decide` asks is answered in its order, a slot first, so that who cannot have one costs
no look at the nodes; a reconcile that ends without a claim, however it ends, leaves the VM without a slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TypeAlias

import msgspec
import structlog

from controller.domain import names
from controller.domain.migration import events, preflight, retention
from controller.domain.migration.decide import decide
from controller.domain.migration.demand import Demand, demand
from controller.domain.migration.phases import MigrationPhase
from controller.domain.migration.plan import (
    Answers,
    Ask,
    AskDryRun,
    AskNode,
    AskOrphaned,
    AskSlot,
    ClaimVM,
    ConfirmClaimLost,
    ConfirmVMGone,
    ConfirmWanted,
    Guard,
    Plan,
    Refused,
    View,
    WriteMigration,
)
from controller.domain.objects import Claim, MigrationStatus, VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import RatioError
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm import launcher
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store, gone
from controller.engine.workers import Result
from controller.kube import codec, errors
from controller.kube.kinds import Node, Pod
from controller.observe.caches import Caches
from controller.reconcilers.api import Api, Record, patch_status
from controller.reconcilers.migration.dry_run import DryRuns
from controller.reconcilers.migration.patience import Patience
from controller.reconcilers.migration.progress import Progress
from controller.reconcilers.migration.room import Room
from controller.reconcilers.migration.slots import Limits, MigrationSlots
from controller.reconcilers.vm.holds import SETTLED
from controller.reconcilers.vm.reconciler import CACHE_PATIENCE

_log = structlog.get_logger(__name__)

ClaimWriter: TypeAlias = Callable[[str, VirtualMachine, Claim | None], Awaitable[str | None]]
"""Puts a claim on the VM of a key; returns the VM's new version, or None if it is gone. Raises ConflictError."""


class MigrationReconciler:
    """Reconciles the migrations of VMs by the VM's key.

    `claim` writes a VM's claim, `wake` queues a key that was granted a slot.
    """

    def __init__(
        self,
        client: Api,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        policy: launcher.LauncherPolicy,
        limits: Limits,
        *,
        record: Record,
        wake: Callable[[str, str], None],
        claim: ClaimWriter,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._caches = caches
        self._nodes = nodes
        self._policy = policy
        self._record = record
        self._write_claim = claim
        self._now = now
        self._consistency = ConsistencyStore()
        self._monotonic = monotonic
        self._progress = Progress(monotonic)
        self._patience = Patience(now)
        # Since when (monotonic) an orphaned claim binds no target any more, by the VM's UID.
        self._unbound: dict[str, float] = {}
        self._room = Room(client, caches, monotonic, freed=self._reconsider)
        self._dry_runs = DryRuns(client, policy, monotonic)
        self._slots = MigrationSlots(
            limits, lambda key: wake(key, "a slot is free"), monotonic, released=self._room.release
        )

    def begin(self) -> None:
        """Take in the claims that exist and listen, once the caches are full and before the first reconcile."""
        for part in (self._progress, self._patience, self._room, self._dry_runs):
            part.listen(self._caches)
        self._nodes.listen(self._node_changed, name="MigrationSlots")
        for caches in self._caches.values():
            caches.vms.listen(self._vm_changed, name="MigrationSlots")
            for vm in caches.vms:
                self._vm_changed(None, vm)

    async def reconcile(self, key: str) -> Result:
        """Bring the migrations of one VM a step further."""
        namespace, _, _ = key.partition("/")
        caches = self._caches.get(namespace) or self._caches[None]
        vm = caches.vms.get(key)
        with self._slots.visit(vm, lambda: caches.vms.get(key)):
            if not self._consistency.ready(key):
                return Result(requeue_after=CACHE_PATIENCE)
            return await self._reconcile(key, vm, caches)

    async def _reconcile(self, key: str, vm: VirtualMachine | None, caches: Caches) -> Result:
        pods, known = caches.pods.by_index(key), caches.migrations.by_index(key)
        if vm is None and any(not item.finished for item in known):
            foreign = await self._is_foreign(key, caches)
            if foreign is not False:
                return Result(retry=foreign is None)
        claim = vm.status.migration if vm is not None else None
        if vm is not None and claim is not None and all(item.metadata.uid != claim.uid for item in known):
            return await self._release_orphan(key, vm, pods, caches)
        again = await self._decide_each(key, known, vm, pods, caches)
        if again is None:
            return Result(retry=True)
        if (later := await self._prune(key, vm, known)) is not None:
            again.append(later)
        return Result(requeue_after=min(again, default=None))

    async def _decide_each(
        self,
        key: str,
        known: tuple[VirtualMachineMigration, ...],
        vm: VirtualMachine | None,
        pods: tuple[Pod, ...],
        caches: Caches,
    ) -> list[float] | None:
        """Decide the migrations in their order; return when to look again (seconds), or None if a guard said no."""
        again: list[float] = []
        for item in sorted(known, key=lambda item: item.rank):
            if (untold := self._progress.due(item)) is not None:
                if not await self._write(untold, key, item, caches):
                    return None
                continue
            plan = await self._decide(self._view(self._progress.known(item), vm, pods, known))
            if plan is None:
                return None
            if plan.requeue_after is not None:
                again.append(plan.requeue_after)
            if (wait := self._progress.put_off(item, plan)) > 0:
                again.append(wait)
                continue
            if not await self._carry_out(plan, key, item, vm, caches):
                return None
            if plan.claims:
                break  # the others are decided when the cache shows the claim, or its end
        return again

    async def _is_foreign(self, key: str, caches: Caches) -> bool | None:
        """Say of a VM that the cache lacks whether it exists outside of what we watch; None if the cache is late."""
        namespace, _, name = key.partition("/")
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, name, namespace=namespace)
        except errors.NotFoundError:
            return False
        return True if caches.vms.has_reached(vm.metadata.resource_version) else None

    async def _release_orphan(self, key: str, vm: VirtualMachine, pods: tuple[Pod, ...], caches: Caches) -> Result:
        """Carry out what becomes of a claim whose migration the cache does not have."""
        plan = await self._decide(View(None, vm, pods, self._now()))
        if plan is None:
            return Result(retry=True)
        for action in plan.actions:
            if isinstance(action, ClaimVM):
                await self._claim(action.claim, key, vm, caches)
        return Result(requeue_after=plan.requeue_after)

    def _view(
        self,
        item: VirtualMachineMigration,
        vm: VirtualMachine | None,
        pods: tuple[Pod, ...],
        known: tuple[VirtualMachineMigration, ...],
    ) -> View:
        source = self._nodes.get(f"/{_source_node(item, vm)}")
        view = View(item, vm, pods, self._now(), source_node=source, guessed=None not in self._caches)
        if vm is None or item.spec.record_of is not None or item.status.phase != MigrationPhase.PENDING:
            return view
        return msgspec.structs.replace(
            view,
            history=known,
            answers=Answers(refused=self._dry_runs.refused(item)),
            target_node=self._nodes.get(f"/{item.spec.target_node}") if item.spec.target_node is not None else None,
            nodes_known=self._nodes.filled,
            refused_since=self._patience.since(item),
        )

    async def _decide(self, view: View) -> Plan | None:
        """Answer what the decision asks for, until it is made; return None if nobody can say now."""
        while not isinstance(decision := decide(view, self._policy), Plan):
            answers = await self._answer(decision, view)
            if answers is None:
                return None
            view = msgspec.structs.replace(view, answers=answers)
        return decision

    async def _answer(self, ask: Ask, view: View) -> Answers | None:
        item, vm = view.migration, view.vm
        if vm is None:
            raise AssertionError("only a VM can be claimed")
        if isinstance(ask, AskOrphaned):
            return await self._look_for_migration(ask.claim, vm)
        if item is None:
            raise AssertionError("only a migration claims")
        match ask:
            case AskSlot():
                refused = self._slots.ask(vm, item, ask.demand)
                return Answers(slot=refused is None, refused=refused)
            case AskNode():
                return await self._find_node(ask.demand, item, vm)
            case AskDryRun():
                refused = await self._dry_runs.ask(item, vm, ask.claim, ask.source)
                if refused is None:
                    return msgspec.structs.replace(view.answers, accepted=True)
                self._slots.give_back(vm)
                return Answers(refused=refused)

    async def _look_for_migration(self, claim: Claim, vm: VirtualMachine) -> Answers | None:
        """Look past the cache for the migration of a claim; return None if it is there.

        A claim that somebody wrote by hand may name what can be no migration at all.
        """
        try:
            found = await self._client.get(MIGRATIONS, claim.name, namespace=vm.metadata.namespace)
            if found.metadata.uid == claim.uid:
                return None
        except (errors.NotFoundError, errors.InvalidNameError):
            pass
        if not claim.rollback:
            return Answers(orphaned=True)
        now = self._monotonic()
        return Answers(orphaned=True, unsettled=self._unbound.setdefault(vm.metadata.uid, now) + SETTLED - now)

    async def _find_node(self, wanted: Demand, item: VirtualMachineMigration, vm: VirtualMachine) -> Answers:
        """Find a node and hold room there; who may not know the nodes leaves all to the scheduler."""
        if not self._nodes.filled:
            return Answers(slot=True, node="")
        if (later := await self._room.refresh(item)) > 0:
            return Answers(later=later)
        found = preflight.find_node(wanted, self._nodes, self._room.used, self._policy)
        if not isinstance(found, Refused):
            self._room.reserve(vm, found, wanted.amount)
            return Answers(slot=True, node=found)
        if found.for_good:
            self._slots.give_back(vm)
        else:
            self._slots.pass_over(vm, item, wanted, found)
        return Answers(refused=found)

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Take in claims, and what was reserved for them by the process before."""
        self._slots.vm_changed(old, new)
        claim = new.status.migration if new is not None else None
        if self._unbound and old is not None and (claim is None or gone(old, new) is not None):
            self._unbound.pop(old.metadata.uid, None)
        if new is None or claim is None or claim.reserved_node is None:
            return
        try:
            amount = demand(claim, new, self._policy).amount
        except RatioError:
            return  # no pod of it can be made
        self._room.take_in(new, self._caches_of(new).pods.by_index(new.metadata.key), amount)

    def _caches_of(self, vm: VirtualMachine) -> Caches:
        return self._caches.get(vm.metadata.namespace) or self._caches[None]

    def _reconsider(self) -> None:
        self._slots.reconsider()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Look again at whom no node had room for, when one can hold more, or others, than before."""
        if new is not None and (old is None or _offers(old) != _offers(new)):
            self._slots.reconsider()

    async def _carry_out(
        self,
        plan: Plan,
        key: str,
        item: VirtualMachineMigration,
        vm: VirtualMachine | None,
        caches: Caches,
    ) -> bool:
        for action in plan.actions:
            match action:
                case WriteMigration():
                    if not await self._write(action.status, key, item, caches):
                        return False
                case ClaimVM() if vm is not None:
                    await self._claim(action.claim, key, vm, caches)
                case ClaimVM():
                    raise AssertionError("a claim needs a VM")
                case _:
                    if not await self._holds(action, item, caches):
                        return False
        return True

    async def _holds(self, guard: Guard, item: VirtualMachineMigration, caches: Caches) -> bool:
        """Whether a plan may go on."""
        match guard:
            case ConfirmWanted():
                return _is_wanted(item, caches)
            case ConfirmVMGone():
                return await self._vm_is_gone(item, guard.uid)
            case ConfirmClaimLost():
                return await self._claim_is_lost(item)

    async def _vm_is_gone(self, item: VirtualMachineMigration, uid: str) -> bool:
        """Look past the cache, which may show a VM that had the name before."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, item.spec.vm_name, namespace=item.metadata.namespace)
        except errors.NotFoundError:
            return True
        return found.metadata.uid != uid

    async def _claim_is_lost(self, item: VirtualMachineMigration) -> bool:
        """Look past the cache, which may show a VM from before the claim, or one that is gone by now."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, item.spec.vm_name, namespace=item.metadata.namespace)
        except errors.NotFoundError:
            return False  # that is what has to be told, once the cache shows it
        return found.status.migration is None or found.status.migration.uid != item.metadata.uid

    async def _write(self, status: MigrationStatus, key: str, item: VirtualMachineMigration, caches: Caches) -> bool:
        written = await patch_status(self._client, MIGRATIONS, item.metadata, codec.merge_patch_of(status))
        if written is None:
            return False  # its claim, if it has one, is released by the next reconcile
        self._consistency.wrote(key, caches.migrations, written.metadata.resource_version)
        for event in events.transitions(item, status):
            self._record(item.metadata, event)
        return True

    async def _claim(self, claim: Claim | None, key: str, vm: VirtualMachine, caches: Caches) -> None:
        try:
            version = await self._write_claim(key, vm, claim)
        except errors.KubeError as error:
            if claim is not None and error.outcome_unknown:
                await self._keep_slot_if_claimed(claim, vm)
            raise
        if version is None:
            return
        self._consistency.wrote(key, caches.vms, version)
        if claim is not None:
            _log.debug("VM claimed", migration=claim.name, source=claim.source_node, rollback=claim.rollback)
            self._slots.claimed(vm, version)

    async def _keep_slot_if_claimed(self, claim: Claim, vm: VirtualMachine) -> None:
        """Look whether a claim was written of which nobody said so: then its slot must not go to another VM."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, vm.metadata.name, namespace=vm.metadata.namespace)
        except errors.KubeError:
            return  # the cache will show it
        if found.status.migration is not None and found.status.migration.uid == claim.uid:
            self._slots.claimed(vm, found.metadata.resource_version)

    async def _prune(
        self, key: str, vm: VirtualMachine | None, known: tuple[VirtualMachineMigration, ...]
    ) -> float | None:
        """Remove what has ended and is not kept any longer; return the seconds until more may go."""
        expired = retention.expired(known, vm, self._now())
        going = expired.surplus
        if expired.orphaned:
            alive = await self._live_uid(key)
            going += tuple(item for item in expired.orphaned if alive is None or item.vm_uid not in (None, alive))
        for item in going:
            try:
                await self._client.delete(
                    MIGRATIONS, item.metadata.name, namespace=item.metadata.namespace, uid=item.metadata.uid
                )
            except errors.NotFoundError:
                continue
        return expired.again

    async def _live_uid(self, key: str) -> str | None:
        """Return the UID of the VM of a key, whatever the cache shows and whoever serves it; None if there is none."""
        namespace, _, name = key.partition("/")
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, name, namespace=namespace)
        except errors.NotFoundError:
            return None
        return vm.metadata.uid


def _is_wanted(item: VirtualMachineMigration, caches: Caches) -> bool:
    """Whether a migration still stands as it was decided on: it may be cancelled while its questions are asked.

    The claim is guarded by the VM's version, which says nothing of that.
    """
    newest = caches.migrations.get(item.metadata.key)
    return newest is not None and newest.metadata.uid == item.metadata.uid and newest.spec == item.spec


def _source_node(item: VirtualMachineMigration, vm: VirtualMachine | None) -> str:
    """Return the node that a VM leaves, or has left."""
    if item.spec.record_of is not None:
        return item.metadata.annotations.get(names.SOURCE_NODE, "")
    if vm is None:
        return ""
    return (vm.status.migration.source_node if vm.status.migration is not None else vm.status.node_name) or ""


def _offers(node: Node) -> tuple[object, ...]:
    """Return what decides who may land on a node."""
    return node.metadata.labels, node.spec, node.status.allocatable
