"""The requests by which the plan about a migration is carried out, each behind its guard.

Guarantees: a status or a claim is written only if the object is unchanged since the decision. A claim that was written
retains its slot, even if the reply was lost. Every write is awaited in the caches before the next decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog

from controller.domain.migration import events
from controller.domain.migration.plan import (
    ClaimVM,
    ConfirmClaimLost,
    ConfirmPodGone,
    ConfirmVMGone,
    ConfirmWanted,
    Guard,
    HandOver,
    Plan,
    WriteMigration,
)
from controller.domain.migration.retention import Expired
from controller.domain.objects import Claim, MigrationStatus, VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.consistency import ConsistencyStore
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.reconcilers.api import Api, Record, patch_status
from controller.reconcilers.migration.slots import MigrationSlots
from controller.reconcilers.migration.visit import Visit

_log = structlog.get_logger(__name__)

ClaimWriter: TypeAlias = Callable[[str, VirtualMachine, Claim | None], Awaitable[str | None]]
"""Puts a claim on the VM of a key; returns the VM's new version, or None if it is deleted. Raises ConflictError."""

HandOverWriter: TypeAlias = Callable[[str, VirtualMachine, Claim, Pod, float], Awaitable[str | None]]
"""Hands a VM over to its target pod, with the seconds for which its guest was stopped.

Returns the VM's new version, or None if the pod is not as it was decided on.
"""


class Requests:
    """Carries out a plan's actions. `claim` writes a VM's claim."""

    def __init__(
        self,
        client: Api,
        consistency: ConsistencyStore,
        slots: MigrationSlots,
        *,
        record: Record,
        claim: ClaimWriter,
        hand_over: HandOverWriter,
    ) -> None:
        self._client = client
        self._consistency = consistency
        self._slots = slots
        self._record = record
        self._write_claim = claim
        self._write_hand_over = hand_over

    async def carry_out(self, plan: Plan, item: VirtualMachineMigration, visit: Visit) -> bool:
        """Do a plan's actions in order; return False if a guard failed."""
        for action in plan.actions:
            match action:
                case WriteMigration():
                    if not await self.write(action.status, item, visit):
                        return False
                case ClaimVM():
                    await self.claim(action.claim, visit)
                case HandOver():
                    if not await self._hand_over(action, visit):
                        return False
                case _:
                    if not await self._confirmed(action, item, visit):
                        return False
        return True

    async def write(self, status: MigrationStatus, item: VirtualMachineMigration, visit: Visit) -> bool:
        """Replace a migration's status; return False if it is deleted. Raises ConflictError if it changed meanwhile."""
        written = await patch_status(self._client, MIGRATIONS, item.metadata, codec.merge_patch_of(status))
        if written is None:
            return False  # its claim, if it has one, is released by the next reconcile
        self._consistency.wrote(visit.key, visit.caches.migrations, written.metadata.resource_version)
        for event in events.transitions(item, status):
            self._record(item.metadata, event)
        return True

    async def claim(self, claim: Claim | None, visit: Visit) -> None:
        """Claim the VM, change its claim, or (None) remove it. Raises ConflictError if it changed meanwhile."""
        vm = visit.the_vm
        try:
            version = await self._write_claim(visit.key, vm, claim)
        except errors.KubeError as error:
            if claim is not None and error.outcome_unknown:
                await self._keep_slot_if_claimed(claim, vm)
            raise
        if version is None:
            return
        self._consistency.wrote(visit.key, visit.caches.vms, version)
        if claim is not None:
            _log.debug("VM claimed", migration=claim.name, source=claim.source_node, rollback=claim.rollback)
            self._slots.claimed(vm, version)

    async def _hand_over(self, action: HandOver, visit: Visit) -> bool:
        version = await self._write_hand_over(visit.key, visit.the_vm, action.claim, action.target, action.downtime)
        if version is not None:
            self._consistency.wrote(visit.key, visit.caches.vms, version)
        return version is not None

    async def _keep_slot_if_claimed(self, claim: Claim, vm: VirtualMachine) -> None:
        """Read live whether a claim was written although the reply was lost: then its slot stays in use."""
        try:
            found = await self._client.get(VIRTUAL_MACHINES, vm.metadata.name, namespace=vm.metadata.namespace)
        except errors.KubeError:
            return  # the cache will show it
        if found.status.migration is not None and found.status.migration.uid == claim.uid:
            self._slots.claimed(vm, found.metadata.resource_version)

    async def prune(self, expired: Expired, visit: Visit) -> None:
        """Delete the migrations whose retention has ended."""
        items = expired.surplus
        if expired.orphaned:
            found = await self.live_vm(visit.key)
            existing = found.metadata.uid if found is not None else None
            items += tuple(item for item in expired.orphaned if existing is None or item.vm_uid not in (None, existing))
        for item in items:
            try:
                await self._client.delete(
                    MIGRATIONS, item.metadata.name, namespace=item.metadata.namespace, uid=item.metadata.uid
                )
            except errors.NotFoundError:
                continue

    # --- live reads --------------------------------------------------------------------------------------

    async def live_vm(self, key: str) -> VirtualMachine | None:
        """Return the VM of a key by a live read, of any class; None if there is none."""
        namespace, _, name = key.partition("/")
        try:
            return await self._client.get(VIRTUAL_MACHINES, name, namespace=namespace)
        except errors.NotFoundError:
            return None

    async def _confirmed(self, guard: Guard, item: VirtualMachineMigration, visit: Visit) -> bool:
        """Whether a guard confirms its condition, so that the plan continues."""
        match guard:
            case ConfirmWanted():
                newest = visit.caches.migrations.get(item.metadata.key)
                return newest is not None and (newest.metadata.uid, newest.spec) == (item.metadata.uid, item.spec)
            case ConfirmVMGone():
                found = await self.live_vm(visit.key)
                return found is None or found.metadata.uid != guard.uid
            case ConfirmPodGone():
                return await self._pod_gone(guard, visit)
            case ConfirmClaimLost():
                found = await self.live_vm(visit.key)
                if found is None:
                    return False  # the deletion itself is reported, once the cache shows it
                claim, over = found.status.migration, found.status.last_hand_over
                return all(known is None or known.uid != item.metadata.uid for known in (claim, over))

    async def _pod_gone(self, guard: ConfirmPodGone, visit: Visit) -> bool:
        try:
            found = await self._client.get(PODS, guard.name, namespace=visit.the_vm.metadata.namespace)
        except errors.NotFoundError:
            return True
        return guard.uid not in ("", found.metadata.uid)
