"""Answers to the questions of the migration's decision: a slot, a node, a dry run, and whether a claim is orphaned.

Guarantees: a migration that is refused has neither a slot nor a reservation. Without permission to list nodes, the
choice of the node is left to the scheduler. Bounded by the migrations that are pending, and the VMs that are claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from controller.domain import capacity
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
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
from controller.domain.vm import launcher
from controller.domain.vm.policy import LauncherPolicy
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
    """Answers questions from the slots, the nodes and the API server. `monotonic` is a clock in seconds."""

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
        # When (monotonic) an orphaned claim was first seen rolled back: it binds no new target. By the VM's UID.
        self._unbound: dict[str, float] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Count the existing claims, and follow nodes and VMs from now on."""
        self._nodes.listen(self._node_changed, name="MigrationSlots")
        for cache in caches.values():
            changed = partial(self._vm_changed, cache)
            cache.vms.listen(changed, name="MigrationSlots")
            for vm in cache.vms:
                changed(None, vm)

    async def answer(self, ask: Ask, view: View) -> Answers | None:
        """Answer a question about a view; return None if there is no answer now, and the reconcile is to be retried."""
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
                refused = await self._dry_runs.ask(item, vm, ask.claim, ask.source, ask.beside)
                if refused is None:
                    return msgspec.structs.replace(view.answers, accepted=True)
                self._slots.give_back(vm)
                return Answers(refused=refused)

    async def _look_for_migration(self, claim: Claim, vm: VirtualMachine) -> Answers | None:
        """Read the migration of a claim live; return None if it exists.

        A claim that was written by hand may have a name that is invalid for an object.
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
        """Find a node and reserve capacity there; without access to nodes the choice is left to the scheduler."""
        if not self._nodes.filled:
            return Answers(slot=True, node="")
        if (later := await self._headroom.refresh(item)) > 0:
            return Answers(later=later)
        found = preflight.find_node(wanted, self._nodes, self._headroom.used, self._headroom.below)
        if not isinstance(found, Refused):
            self._headroom.reserve(vm, found.node, wanted.amount)
            return Answers(slot=True, node=found.node, by_preemption=found.by_preemption)
        if found.for_good:
            self._slots.give_back(vm)
        else:
            self._slots.pass_over(vm, item, wanted, found)
        return Answers(refused=found)

    # --- changes in the caches ---------------------------------------------------------------------------------

    def _vm_changed(self, cache: Caches, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Count a claim, and restore the reservation that the previous process made for it."""
        self._slots.vm_changed(old, new)
        claim = new.status.migration if new is not None else None
        if self._unbound and old is not None and (claim is None or gone(old, new) is not None):
            self._unbound.pop(old.metadata.uid, None)
        if new is None or claim is None or claim.reserved_node is None:
            return
        try:
            amount = capacity.of_vm(launcher.requested(new), self._policy)
        except RatioError:
            return  # no pod can be created from this spec
        self._headroom.take_in(new, cache.pods.by_index(new.metadata.key), amount)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Reconsider the migrations that found no node when a change of a node may let it accept other pods."""
        if new is not None and (old is None or _offers(old) != _offers(new)):
            self._slots.reconsider()


def _offers(node: Node) -> tuple[object, ...]:
    """Return the fields that decide which pods a node accepts."""
    return node.metadata.labels, node.spec, node.status.allocatable
