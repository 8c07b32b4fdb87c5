"""The migration reconciler: claims VMs, follows their way, and never touches a pod.

Its keys are VMs, so that all migrations of one VM are decided together and never two at once. Guarantees: every
write is guarded.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import structlog

from controller.domain import events, history, launcher, migration, names, preflight
from controller.domain.migration import (
    ClaimVM,
    ConfirmClaimLost,
    ConfirmVMGone,
    MigrationView,
    Reason,
    Refused,
    WriteMigration,
)
from controller.domain.objects import (
    Claim,
    MigrationStatus,
    Node,
    Pod,
    VirtualMachine,
    VirtualMachineMigration,
)
from controller.engine.consistency import ConsistencyStore
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube import codec, errors
from controller.kube.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.reconcilers.api import Api, patch_status
from controller.reconcilers.progress import Progress
from controller.reconcilers.room import Room
from controller.reconcilers.sources import Caches
from controller.reconcilers.turns import Turns
from controller.reconcilers.vm import CACHE_PATIENCE, Record

_log = structlog.get_logger(__name__)

ClaimWriter: TypeAlias = Callable[[str, VirtualMachine, Claim | None], Awaitable[str | None]]
"""Puts a claim on the VM of a key; returns the VM's new version, or None if it is gone. Raises ConflictError."""


class MigrationReconciler:
    """Reconciles the migrations of VMs by the VM's key.

    `claim` writes a VM's claim, `wake` queues a key whose turn may have come.
    """

    def __init__(
        self,
        client: Api,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        policy: launcher.LauncherPolicy,
        turns: Turns,
        *,
        record: Record,
        wake: Callable[[str, str], None],
        claim: ClaimWriter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._caches = caches
        self._nodes = nodes
        self._policy = policy
        self._turns = turns
        self._record = record
        self._wake = wake
        self._write_claim = claim
        self._now = now
        self._consistency = ConsistencyStore()
        self._room = Room(client, caches, monotonic)
        self._progress = Progress(caches, monotonic)

    def begin(self) -> None:
        """Take in the claims that exist, once the caches are full and before the first reconcile."""
        for caches in self._caches.values():
            self._turns.observe(caches.vms)

    async def reconcile(self, key: str) -> Result:
        """Bring the migrations of one VM a step further."""
        if not self._consistency.ready(key):
            return Result(requeue_after=CACHE_PATIENCE)
        namespace, _, _ = key.partition("/")
        caches = self._caches.get(namespace) or self._caches[None]
        vm, pods = caches.vms.get(key), caches.pods.by_index(key)
        known = caches.migrations.by_index(key)
        if vm is None and any(not item.finished for item in known):
            foreign = await self._is_foreign(key, caches)
            if foreign is not False:
                return Result(retry=foreign is None)
        claim = vm.status.migration if vm is not None else None
        if claim is None:
            self._end_turn(key)
        elif vm is not None and all(item.metadata.uid != claim.uid for item in known):
            return await self._release_orphan(key, vm, pods, claim, caches)
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
        waiting = False
        for item in sorted(known, key=migration.rank):
            waiting = waiting or migration.wants_preflight(item, vm, pods)
            if (untold := self._progress.due(item)) is not None:
                if not await self._write(untold, key, item, caches):
                    return None
                continue
            view = await self._view(key, self._progress.known(item), vm, pods, known)
            plan = migration.decide_migration(view)
            if plan.requeue_after is not None:
                again.append(plan.requeue_after)
            if (wait := self._progress.put_off(item, plan)) > 0:
                again.append(wait)
                continue
            if not await self._carry_out(plan, key, item, vm, caches):
                return None
            if any(isinstance(action, ClaimVM) for action in plan.actions):
                break  # the others are decided when the cache shows the claim, or its end
        if not waiting:
            self._turns.forget(key)
        return again

    async def _is_foreign(self, key: str, caches: Caches) -> bool | None:
        """Say of a VM that the cache lacks whether it exists outside of what we watch; None if the cache is late."""
        namespace, _, name = key.partition("/")
        try:
            vm = await self._client.get(VIRTUAL_MACHINES, name, namespace=namespace)
        except errors.NotFoundError:
            return False
        return True if caches.vms.has_reached(vm.metadata.resource_version) else None

    async def _release_orphan(
        self, key: str, vm: VirtualMachine, pods: tuple[Pod, ...], claim: Claim, caches: Caches
    ) -> Result:
        """End a claim whose migration the cache does not have, if a live read agrees that it is gone.

        A claim that somebody wrote by hand may name what can be no migration at all.
        """
        try:
            found = await self._client.get(MIGRATIONS, claim.name, namespace=vm.metadata.namespace)
            if found.metadata.uid == claim.uid:
                return Result(retry=True)
        except (errors.NotFoundError, errors.InvalidNameError):
            pass
        for action in migration.release_orphan(vm, pods).actions:
            if isinstance(action, ClaimVM):
                await self._claim(action.claim, key, vm, caches)
        return Result()

    async def _view(
        self,
        key: str,
        item: VirtualMachineMigration,
        vm: VirtualMachine | None,
        pods: tuple[Pod, ...],
        known: tuple[VirtualMachineMigration, ...],
    ) -> MigrationView:
        now = self._now()
        if vm is None or not migration.wants_preflight(item, vm, pods):
            lost = item.metadata.annotations.get(names.SOURCE_NODE)
            back = lost is not None and self._nodes.get(f"/{lost}") is not None
            return MigrationView(item, vm, pods, now, node_back=back)
        backoff = migration.backoff(known, vm.metadata.uid, now)
        # Who may not know the nodes leaves all to the scheduler.
        refused = await self._preflight(item, vm) if backoff is None and self._nodes.filled else None
        if refused is None and backoff is None:
            waits = self._turns.ask(key, migration.rank(item), vm.status.node_name or "")
            refused = Refused(Reason.LIMIT, waits, for_good=False) if waits is not None else None
        return MigrationView(item, vm, pods, now, preflight=refused, backoff=backoff)

    async def _preflight(self, item: VirtualMachineMigration, vm: VirtualMachine) -> Refused | None:
        """Ask whether a node could hold the VM, ever and now."""
        wanted = item.spec.target_node
        if wanted is not None:
            target = self._nodes.get(f"/{wanted}")
            if (wrong := preflight.wrong_target(wanted, target)) is not None:
                return wrong
        return preflight.no_room(item, vm, self._nodes, await self._room.used_for(item), self._policy)

    async def _carry_out(
        self,
        plan: migration.MigrationPlan,
        key: str,
        item: VirtualMachineMigration,
        vm: VirtualMachine | None,
        caches: Caches,
    ) -> bool:
        for action in plan.actions:
            match action:
                case ConfirmVMGone():
                    if not await self._vm_is_gone(item, action.uid):
                        return False
                case ConfirmClaimLost():
                    if not await self._claim_is_lost(item):
                        return False
                case WriteMigration():
                    if not await self._write(action.status, key, item, caches):
                        return False
                case ClaimVM() if vm is not None:
                    await self._claim(action.claim, key, vm, caches)
                case ClaimVM():
                    raise AssertionError("a claim needs a VM")
        return True

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
        for event in events.migration_transitions(item, status):
            self._record(item.metadata, event)
        return True

    async def _claim(self, claim: Claim | None, key: str, vm: VirtualMachine, caches: Caches) -> None:
        version = await self._write_claim(key, vm, claim)
        if version is None:
            self._end_turn(key)
            return
        self._consistency.wrote(key, caches.vms, version)
        if claim is None:
            self._end_turn(key)
        else:
            _log.debug("VM claimed", migration=claim.name, source=claim.source_node, rollback=claim.rollback)
            self._turns.claimed(key, claim.source_node)

    def _end_turn(self, key: str) -> None:
        for other in self._turns.ended(key):
            self._wake(other, "a slot is free")

    async def _prune(
        self, key: str, vm: VirtualMachine | None, known: tuple[VirtualMachineMigration, ...]
    ) -> float | None:
        """Remove what has ended and is not kept any longer; return the seconds until more may go."""
        expired = history.expired(known, vm, self._now())
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
