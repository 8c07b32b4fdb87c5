"""The room on each node: what pods hold there, and what is reserved for VMs that move.

Guarantees:

- Pods are read only while a migration looks for a node, and no reading is from before the migration was there that
  asks (`controller.observe.holdings`), so that what a person did before asking for it counts.
- What a VM was promised is reserved until its target pod has a node, or until it gives its slot back; so no room is
  promised twice. It is a promise to other migrations only: the scheduler may choose another node, and then the pod
  counts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controller.domain import capacity, ownership
from controller.domain.capacity import Amount
from controller.domain.migration.phases import MigrationPhase
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.store import gone
from controller.kube.kinds import Pod
from controller.kube.verbs import Lister
from controller.observe.caches import Caches
from controller.observe.holdings import Holdings
from controller.observe.loads import Ledger
from controller.reconcilers.sources import no_longer_pending

_NEVER: Final = float("-inf")


class Headroom:
    """What pods of some namespaces (None: of all) hold, and reservations.

    `freed` is called when a reservation ends whose room nobody took.
    """

    def __init__(
        self,
        client: Lister,
        namespaces: Iterable[str | None],
        monotonic: Callable[[], float],
        freed: Callable[[], None] = lambda: None,
    ) -> None:
        self._holdings = Holdings(client, namespaces, monotonic)
        self._monotonic = monotonic
        self._freed = freed
        self._reserved = Ledger()
        # The life of each VM that has a reservation whose pod will take the room.
        self._lives: dict[str, int] = {}
        # Since when (monotonic) each pending migration is known, by UID.
        self._known_since: dict[str, float] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations and the pods from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._migration_changed, name="Room")
            cache.pods.listen(self._pod_changed, name="Room")

    def used(self, node: str) -> Amount:
        """Return what is held on a node, as of the last reading and the caches."""
        return self._holdings.on(node) + self._reserved.on(node)

    async def refresh(self, item: VirtualMachineMigration) -> float:
        """Read what pods hold, if that is too old for a migration; return the seconds until it may be read, or 0."""
        return await self._holdings.refresh(self._known_since.get(item.metadata.uid, _NEVER))

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
        if self._holdings.kept:
            self._holdings.pod_changed(old, new)

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
            if self._known_since.pop(item.metadata.uid, None) is not None and not self._known_since:
                self._holdings.forget()
        fresh = old is None or gone(old, new) is not None
        if fresh and new is not None and new.status.phase == MigrationPhase.PENDING:
            self._known_since[new.metadata.uid] = self._monotonic()


def _has_taken(pod: Pod, life: int) -> bool:
    """Whether this is the pod of a life, or of a later one, and counts on a node."""
    incarnation = ownership.incarnation(pod)
    return capacity.node_of(pod) is not None and incarnation is not None and incarnation >= life
