"""Free capacity of each node: the requests of its pods, and the reservations for VMs that migrate.

Guarantees:

- Pods are listed only while a migration looks for a node. The list is never older than the migration that asks
  (`controller.observe.holdings`), so that it shows every change that the user made before creating the migration.
- Capacity that was found for a VM stays reserved until its target pod has a node, or until its slot is given back. So
  no capacity is granted twice. A reservation binds other migrations only: the scheduler may choose another node, and
  then the pod counts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Requests of the pods in some namespaces (None: in all), and reservations.

    `monotonic` is a clock in seconds. `freed` is called when a reservation ends and its node has capacity again.
    """

    def __init__(
        self,
        client: Lister,
        namespaces: Iterable[str | None],
        monotonic: Callable[[], float],
        freed: Callable[[], None],
    ) -> None:
        self._holdings = Holdings(client, namespaces, monotonic)
        self._monotonic = monotonic
        self._freed = freed
        self._reserved = Ledger()
        # For each VM with a reservation, by UID: the incarnation whose pod takes the reserved capacity.
        self._incarnations: dict[str, int] = {}
        # When (monotonic) the cache first showed each pending migration, by UID.
        self._known_since: dict[str, float] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations and the pods from now on."""
        for cache in caches.values():  # the names are labels of vmsim_store_listener_failures
            cache.migrations.listen(self._migration_changed, name="Room")
            cache.pods.listen(self._pod_changed, name="Room")

    def used(self, node: str) -> Amount:
        """Return what is requested and reserved on a node, as of the last list and the caches."""
        return self._holdings.on(node) + self._reserved.on(node)

    def below(self, node: str, priority: int) -> Iterator[tuple[int, Amount]]:
        """Yield the lower priorities, the lowest first, each with the requests of its pods on a node, if any."""
        return self._holdings.below(node, priority)

    async def refresh(self, item: VirtualMachineMigration) -> float:
        """List the pods if the last list is too old for a migration; return the seconds until that is allowed, or 0."""
        return await self._holdings.refresh(self._known_since.get(item.metadata.uid, _NEVER))

    # --- reservations ------------------------------------------------------------------------------------------

    def reserve(self, vm: VirtualMachine, node: str, amount: Amount) -> None:
        """Reserve capacity on a node for the next incarnation of a VM."""
        self._reserved.put(vm.metadata.uid, node, amount)
        self._incarnations[vm.metadata.uid] = vm.status.next_incarnation

    def take_in(self, vm: VirtualMachine, pods: tuple[Pod, ...], amount: Amount) -> None:
        """Restore the reservation that a claim names, unless the target pod has a node; `pods` are the VM's."""
        claim, uid = vm.status.migration, vm.metadata.uid
        if claim is None or claim.reserved_node is None or uid in self._reserved:
            return
        target = claim.target
        if not any(ownership.belongs_to(pod, vm) and _has_node(pod, target) for pod in pods):
            self._reserved.put(uid, claim.reserved_node, amount)
            self._incarnations[uid] = target

    def release(self, uid: str) -> bool:
        """End the reservation of a VM; return whether there was one."""
        self._incarnations.pop(uid, None)
        return self._reserved.drop(uid) is not None

    # --- changes in the caches ---------------------------------------------------------------------------------

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and self._incarnations:
            self._target_changed(new)
        if self._holdings.active:
            self._holdings.pod_changed(old, new)

    def _target_changed(self, pod: Pod) -> None:
        """End a reservation when its pod has a node, where its requests count from then on."""
        owner = ownership.owner(pod)
        target = self._incarnations.get(owner.uid) if owner is not None else None
        if owner is None or target is None or not _has_node(pod, target):
            return
        del self._incarnations[owner.uid]
        if self._reserved.drop(owner.uid) != capacity.node_of(pod):
            self._freed()

    def _migration_changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        for item in no_longer_pending(old, new):
            if self._known_since.pop(item.metadata.uid, None) is not None and not self._known_since:
                self._holdings.forget()
        fresh = old is None or gone(old, new) is not None
        if fresh and new is not None and new.status.phase == MigrationPhase.PENDING:
            self._known_since[new.metadata.uid] = self._monotonic()


def _has_node(pod: Pod, incarnation: int) -> bool:
    """Whether this pod is of an incarnation, or of a later one, and has a node."""
    found = ownership.incarnation(pod)
    return capacity.node_of(pod) is not None and found is not None and found >= incarnation
