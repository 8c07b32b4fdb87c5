"""Answers to what the migration's decision asks: a slot, a node and a dry run before a claim; whether one is orphaned.

Guarantees: whoever is refused holds no slot and no room; what is not known to whoever may not look at nodes is left to
the scheduler. Bounded by the migrations that are pending, and the VMs that are claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand, demand
from controller.domain.migration.plan import (
    Answers,
    Ask,
    AskDryRun,
    AskNode,
    AskOrphaned,
    AskSlot,
    Refused,
    View,
)
from controller.domain.objects import Claim, VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import RatioError
from controller.domain.resources import MIGRATIONS
from controller.domain.vm.launcher import LauncherPolicy
from controller.engine.store import Store, gone
from controller.kube import errors
from controller.kube.kinds import Node
from controller.kube.verbs import Getter
from controller.observe.caches import Caches
from controller.reconcilers.migration.dry_run import DryRuns
from controller.reconcilers.migration.headroom import Headroom
from controller.reconcilers.migration.slots import MigrationSlots
from controller.reconcilers.vm.expectations import SETTLED


class Questions:
    """Who may move where. `monotonic` is a clock in seconds."""

    def __init__(
        self,
        client: Getter,
        nodes: Store[Node],
        policy: LauncherPolicy,
        *,
        slots: MigrationSlots,
        headroom: Headroom,
        dry_runs: DryRuns,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._policy = policy
        self._slots = slots
        self._headroom = headroom
        self._dry_runs = dry_runs
        self._monotonic = monotonic
        # Since when (monotonic) an orphaned claim binds no target any more, by the VM's UID.
        self._unbound: dict[str, float] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Take in the claims that exist, and follow nodes and VMs from now on."""
        self._nodes.listen(self._node_changed, name="MigrationSlots")
        for cache in caches.values():
            changed = partial(self._vm_changed, cache)
            cache.vms.listen(changed, name="MigrationSlots")
            for vm in cache.vms:
                changed(None, vm)

    async def answer(self, ask: Ask, view: View) -> Answers | None:
        """Answer a question about a view; return None if nobody can say now."""
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
        if (later := await self._headroom.refresh(item)) > 0:
            return Answers(later=later)
        found = preflight.find_node(wanted, self._nodes, self._headroom.used, self._policy)
        if not isinstance(found, Refused):
            self._headroom.reserve(vm, found, wanted.amount)
            return Answers(slot=True, node=found)
        if found.for_good:
            self._slots.give_back(vm)
        else:
            self._slots.pass_over(vm, item, wanted, found)
        return Answers(refused=found)

    # --- what the caches show ----------------------------------------------------------------------------------

    def _vm_changed(self, cache: Caches, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
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
        self._headroom.take_in(new, cache.pods.by_index(new.metadata.key), amount)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Look again at whom no node had room for, when one can hold more, or others, than before."""
        if new is not None and (old is None or _offers(old) != _offers(new)):
            self._slots.reconsider()


def _offers(node: Node) -> tuple[object, ...]:
    """Return what decides who may land on a node."""
    return node.metadata.labels, node.spec, node.status.allocatable
