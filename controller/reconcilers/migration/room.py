"""What is held on each node: by pods, strangers' included, and by reservations of VMs that move.

Guarantees:

- All pods are listed at most every `READ_PERIOD`, sooner only where they are so few that it costs nothing
  (`_SECONDS_A_PAGE`), and only while a migration looks for a node. No reading is from before the migration was there
  that asks, so that what a person did before asking for it counts.
- Between two readings the pods that the caches show count as they are now. A pod without a node counts on the one that
  the scheduler nominated for it.
- What a VM was promised is reserved until its target pod has a node, or until it gives its slot back; so no room is
  promised twice. It is a promise to other migrations only: the scheduler may choose another node, and then the pod
  counts there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from controller.domain import capacity, ownership
from controller.domain.capacity import Amount
from controller.domain.migration.machine import MigrationPhase
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.listing import PAGE_SIZE, everything
from controller.engine.store import gone
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.observe.caches import Caches
from controller.observe.loads import Ledger
from controller.reconcilers.api import Api
from controller.reconcilers.sources import no_longer_pending

_log = structlog.get_logger(__name__)

READ_PERIOD: Final = 5.0
"""Seconds for which one reading is used."""
_SECONDS_A_PAGE: Final = 0.25
"""How long at least from one reading to the next, by the full pages that it took: with 10,000 pods `READ_PERIOD`."""
_NEVER: Final = float("-inf")


class Room:
    """Readings of the pods of some namespaces (None: of all), and reservations.

    `freed` is called when a reservation ends whose room nobody took.
    """

    def __init__(
        self,
        client: Api,
        namespaces: Iterable[str | None],
        monotonic: Callable[[], float],
        freed: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)
        self._monotonic = monotonic
        self._freed = freed
        self._pods = Ledger()
        self._reserved = Ledger()
        # The life of each VM that has a reservation whose pod will take the room.
        self._lives: dict[str, int] = {}
        # Pods whose requests could not be read at the last reading, and why.
        self._unreadable: frozenset[tuple[str, str]] = frozenset()
        self._read_at = _NEVER
        self._next_reading = _NEVER
        self._reading = asyncio.Lock()
        # Pods that changed while a reading is under way, by UID; None if it is not.
        self._changed: dict[str, Pod | None] | None = None
        # Since when (monotonic) each pending migration is known, by UID.
        self._known_since: dict[str, float] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations and the pods from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._migration_changed, name="Room")
            cache.pods.listen(self._pod_changed, name="Room")

    def used(self, node: str) -> Amount:
        """Return what is held on a node, as of the last reading and the caches."""
        return self._pods.on(node) + self._reserved.on(node)

    async def refresh(self, item: VirtualMachineMigration) -> float:
        """Read what is held where, if that is too old for a migration; return the seconds until it may be read, or 0.

        Who asks while a reading is under way waits for it, and shares the next one if that is too old.
        """
        asked = self._known_since.get(item.metadata.uid, _NEVER)
        async with self._reading:
            now = self._monotonic()
            if self._read_at >= asked and self._read_at > now - READ_PERIOD:
                return 0.0
            if now < self._next_reading:
                return self._next_reading - now
            await self._read(now)
        return 0.0

    async def _read(self, began: float) -> None:
        self._changed = {}
        try:
            found = [await everything(self._client, PODS, namespace=namespace) for namespace in self._namespaces]
            self._pods = Ledger()
            unreadable: set[tuple[str, str]] = set()
            count = 0
            for pods in found:
                count += len(pods)
                for pod in pods:
                    self._count(pod, lambda pod, why: unreadable.add((pod.metadata.key, why)))
            for uid, newest in self._changed.items():
                self._pods.drop(uid)
                if newest is not None:
                    self._count(newest)
        finally:
            self._changed = None
        self._read_at = began
        self._next_reading = began + min(READ_PERIOD, count // PAGE_SIZE * _SECONDS_A_PAGE)
        for key, why in sorted(unreadable - self._unreadable):
            _log.warning("a pod's requests cannot be read: room on its node is for the scheduler", pod=key, error=why)
        self._unreadable = frozenset(unreadable)

    def _count(self, pod: Pod, unreadable: Callable[[Pod, str], None] = lambda *_: None) -> None:
        if (held := capacity.holding(pod, unreadable)) is not None:
            self._pods.put(pod.metadata.uid, *held)

    # --- reservations ------------------------------------------------------------------------------------------

    def reserve(self, vm: VirtualMachine, node: str, amount: Amount) -> None:
        """Hold room on a node for the next life of a VM."""
        self._reserved.put(vm.metadata.uid, node, amount)
        self._lives[vm.metadata.uid] = (vm.status.incarnation or 0) + 1

    def take_in(self, vm: VirtualMachine, pods: tuple[Pod, ...], amount: Amount) -> None:
        """Hold what a claim says that was reserved, unless a pod has taken its place; `pods` are the VM's."""
        claim, uid = vm.status.migration, vm.metadata.uid
        if claim is None or claim.reserved_node is None or uid in self._reserved:
            return
        life = claim.source_incarnation + 1
        if not any(ownership.belongs_to(pod, vm) and _has_taken(pod, life) for pod in pods):
            self._reserved.put(uid, claim.reserved_node, amount)
            self._lives[uid] = life

    def release(self, uid: str) -> bool:
        """Hold nothing for a VM any more; return whether something was held."""
        self._lives.pop(uid, None)
        return self._reserved.drop(uid) is not None

    # --- what the caches show ----------------------------------------------------------------------------------

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and self._lives:
            self._target_changed(new)
        if self._changed is None and self._read_at == _NEVER:
            return  # nobody has asked
        for pod in (old, new):
            if pod is not None:
                self._pods.drop(pod.metadata.uid)
                if self._changed is not None:
                    self._changed[pod.metadata.uid] = new if pod is new else None
        if new is not None:
            self._count(new)

    def _target_changed(self, pod: Pod) -> None:
        """End a reservation whose pod has a node, and counts there."""
        owner = ownership.owner(pod)
        life = self._lives.get(owner.uid) if owner is not None else None
        if owner is None or life is None or not _has_taken(pod, life):
            return
        del self._lives[owner.uid]
        if self._reserved.drop(owner.uid) != capacity.node_of(pod):
            self._freed()

    def _migration_changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        for item in no_longer_pending(old, new):
            if self._known_since.pop(item.metadata.uid, None) is not None:
                self._forget()
        fresh = old is None or gone(old, new) is not None
        if fresh and new is not None and new.status.phase == MigrationPhase.PENDING:
            self._known_since[new.metadata.uid] = self._monotonic()

    def _forget(self) -> None:
        """Keep no reading when nobody will ask."""
        if not self._known_since and self._changed is None:
            self._pods, self._read_at = Ledger(), _NEVER


def _has_taken(pod: Pod, life: int) -> bool:
    """Whether this is the pod of a life, or of a later one, and counts on a node."""
    incarnation = ownership.incarnation(pod)
    return capacity.node_of(pod) is not None and incarnation is not None and incarnation >= life
