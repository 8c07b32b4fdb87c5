"""Migration slots: how many VMs migrate at once, in the cluster and away from each node, and which migration is next.

A migration asks for a slot before any expensive step. The slot is granted to its VM, which then looks for a node and
claims. Guarantees:

- No slot stays free while a waiting migration could use it. It is granted to the best rank (priority, then age) among
  those that are not passed over and whose node is below its own limit, and the VM is queued.
- A migration for which no node has capacity is passed over, and so are all with an equal `Demand` (the same amount,
  source node, allowed nodes, priority), since they would get the same answer. They keep their rank and block no other
  migration until `reconsider`, or until a probe: one demand every `PROBE_PERIOD`, since the answer may have changed.
  A slot that is given back frees its reservation, which changes the answer only of those passed over since its grant.
- A granted slot that is not used for a claim by the end of the VM's reconcile is given back, even after an error. A
  used one is free again once the cache shows that the claim was removed, or the VM deleted.
- A migration that did not ask in its VM's last reconcile does not wait for a slot. The state of a VM that was deleted
  during its reconcile is dropped at the end of that reconcile.
- All state is stored by UID, so that a namesake inherits nothing. `ask` costs O(log n) comparisons in the waiting
  migrations, `reconsider` O(demands that are passed over).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from controller.domain.migration.demand import Demand
from controller.domain.migration.limits import Limits
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.changes import revision
from controller.engine.store import gone

_T = TypeVar("_T")

PROBE_PERIOD: Final = 5.0
"""Seconds between two probes: one demand that was passed over is tried again without a known change."""

_Place: TypeAlias = tuple[tuple[int, str, str], str]
"""Sort key of a waiting migration: its rank, and its UID."""


@dataclass(slots=True)
class _Waiting:
    """A migration that waits for a slot. `asked`: in the current reconcile of its VM, or else in the last one."""

    key: str
    vm: str
    place: _Place
    demand: Demand
    asked: bool = True


@dataclass(slots=True)
class _Slot:
    """A slot in use.

    `node`: the source node. `claimed_at`: the VM's version as of its claim; None before the claim. `fresh`: the VM's
    reconcile that may use the slot has not started yet. `again`: the VM's key, if another of its migrations was next in
    rank meanwhile, so that the VM is queued when the slot is given back. `since`: `_times_passed` as of the grant.
    """

    node: str
    since: int
    claimed_at: int | None = None
    fresh: bool = True
    again: str | None = None


class MigrationSlots:
    """Slots in use by VM UID, and the migrations that wait for one.

    `wake` queues a VM's key. `released` is called with the UID of a VM that has no slot any more, before the slot is
    granted again, and returns whether that freed a reservation. `monotonic` is a clock in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        wake: Callable[[str], None],
        monotonic: Callable[[], float],
        released: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._limits = limits
        self._wake = wake
        self._monotonic = monotonic
        self._released = released
        self._slots: dict[str, _Slot] = {}
        self._leaving: Counter[str] = Counter()
        # The waiting migrations: by UID; their UIDs by VM; sorted, by demand; and the demands of each source node.
        self._line: dict[str, _Waiting] = {}
        self._of_vm: dict[str, set[str]] = {}
        self._demands: dict[Demand, list[_Place]] = {}
        self._at_node: dict[str, set[Demand]] = {}
        # The first of each demand that could be granted a free slot: all of them, sorted; and by demand.
        self._heads: list[_Place] = []
        self._head_of: dict[Demand, _Place] = {}
        # Demands that are passed over, the oldest first: the refusal, and `_times_passed` as of then.
        self._passed: dict[Demand, tuple[Refused, int]] = {}
        self._times_passed = 0
        self._probe_at = 0.0

    # --- calls of the reconciler -------------------------------------------------------------------------------

    @contextmanager
    def visit(self, vm: VirtualMachine | None, shown: Callable[[], VirtualMachine | None]) -> Iterator[None]:
        """Enclose one reconcile of a VM; at its end, migrations that did not ask stop waiting, an unused slot is freed.

        `shown` returns the VM that the cache then has under that key.
        """
        if vm is None:
            yield
            return
        uid = vm.metadata.uid
        for waiting in self._of_vm.get(uid, ()):
            self._line[waiting].asked = False
        if (slot := self._slots.get(uid)) is not None:
            slot.fresh = False
        try:
            yield
        finally:
            for waiting in tuple(self._of_vm.get(uid, ())):
                if not self._line[waiting].asked:
                    self._leave(waiting)
            slot = self._slots.get(uid)
            newest = shown()
            if newest is None or newest.metadata.uid != uid:
                self._deleted(uid)
            elif slot is None:
                self._drop_reservation(uid)
            elif slot.claimed_at is None and not slot.fresh:
                self.give_back(vm)

    def ask(self, vm: VirtualMachine, item: VirtualMachineMigration, demand: Demand) -> Refused | None:
        """Return None if the VM has a slot now, else the reason for which the migration waits from now on."""
        uid = vm.metadata.uid
        if uid not in self._slots or demand in self._passed:
            self._probe()
            self._enter(vm, item, demand)
            self._grant(asking=uid)
        if (passed := self._passed.get(demand)) is not None:
            return passed[0]  # the VM's slot, if it has one, is for another of its migrations
        slot = self._slots.get(uid)
        if slot is None:
            return Refused(Reason.LIMIT, self._limit_reached(demand.source), for_good=False)
        slot.fresh = False
        self._leave(item.metadata.uid)
        return None

    def pass_over(self, vm: VirtualMachine, item: VirtualMachineMigration, demand: Demand, why: Refused) -> None:
        """Take the slot back from a VM for which no node has capacity; its migration still waits, with its rank."""
        if not self._passed:
            self._probe_at = self._monotonic() + PROBE_PERIOD
        self._passed.pop(demand, None)
        self._times_passed += 1
        self._passed[demand] = why, self._times_passed
        self._enter(vm, item, demand)
        if vm.metadata.uid in self._slots:
            self._release(vm.metadata.uid)
        self._grant()

    def claimed(self, vm: VirtualMachine, version: str) -> None:
        """Retain the slot of a VM whose claim was written, as of this version, until the cache shows its end."""
        slot = self._slots.get(vm.metadata.uid)
        if slot is not None:  # None: the VM was deleted meanwhile
            slot.claimed_at = revision(version)

    def give_back(self, vm: VirtualMachine) -> None:
        """Give back a slot that was not used."""
        slot = self._slots.get(vm.metadata.uid)
        if slot is not None and slot.claimed_at is None:
            freed = self._release(vm.metadata.uid)
            self.reconsider(slot.since if freed else self._times_passed)

    def reconsider(self, since: int = 0) -> None:
        """Stop passing over the demands refused after `since`: nodes, or reservations on them, have changed."""
        while self._passed:
            demand, (_, time) = next(reversed(self._passed.items()))
            if time <= since:
                break
            del self._passed[demand]
            self._refresh(demand)
        self._grant()

    # --- changes in the cache ----------------------------------------------------------------------------------

    def vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Count the claim of a VM; drop the state of a VM that is deleted, or not ours any more."""
        if (deleted := gone(old, new)) is not None:
            self._deleted(deleted.metadata.uid)
        if new is None:
            return
        uid, claim = new.metadata.uid, new.status.migration
        slot = self._slots.get(uid)
        if claim is None and slot is None:
            return
        version = revision(new.metadata.resource_version)
        if claim is not None:
            if slot is None:
                self._take(uid, claim.source_node)
            self._slots[uid].claimed_at = version
        elif slot is not None and slot.claimed_at is not None and slot.claimed_at <= version:
            self._release(uid)
            self.reconsider()

    def _deleted(self, uid: str) -> None:
        for waiting in tuple(self._of_vm.get(uid, ())):
            self._leave(waiting)
        if uid in self._slots:
            self._release(uid)
            self.reconsider()
        else:
            self._drop_reservation(uid)

    def _drop_reservation(self, uid: str) -> None:
        """Free the reservation of a VM without a slot: it may have been made after the slot was freed."""
        if self._released(uid):
            self.reconsider()

    # --- waiting -----------------------------------------------------------------------------------------------

    def _enter(self, vm: VirtualMachine, item: VirtualMachineMigration, demand: Demand) -> None:
        uid, place = item.metadata.uid, (item.rank, item.metadata.uid)
        known = self._line.get(uid)
        if known is not None and (known.place, known.demand) == (place, demand):
            known.asked = True
        else:
            self._leave(uid)
            self._line[uid] = _Waiting(vm.metadata.key, vm.metadata.uid, place, demand)
            self._of_vm.setdefault(vm.metadata.uid, set()).add(uid)
            insort(self._demands.setdefault(demand, []), place)
            self._at_node.setdefault(demand.source, set()).add(demand)
        self._refresh(demand)

    def _leave(self, uid: str) -> None:
        waiting = self._line.pop(uid, None)
        if waiting is None:
            return
        _discard(self._of_vm, waiting.vm, uid)
        places = self._demands[waiting.demand]
        del places[bisect_left(places, waiting.place)]
        if not places:
            del self._demands[waiting.demand]
            _discard(self._at_node, waiting.demand.source, waiting.demand)
            self._passed.pop(waiting.demand, None)
        self._refresh(waiting.demand)

    def _refresh(self, demand: Demand) -> None:
        """Update which migration of a demand, if any, is among those that could be granted a slot."""
        places = self._demands.get(demand)
        eligible = places and demand not in self._passed and self._below_limit(demand.source)
        after = places[0] if places and eligible else None
        before = self._head_of.get(demand)
        if before == after:
            return
        if before is not None:
            del self._heads[bisect_left(self._heads, before)]
            del self._head_of[demand]
        if after is not None:
            insort(self._heads, after)
            self._head_of[demand] = after

    def _probe(self) -> None:
        """Try the demand again that was passed over longest ago, if a probe is due and a slot is free."""
        if not self._passed or self._monotonic() < self._probe_at or not self._any_free():
            return
        for demand in self._passed:
            if self._below_limit(demand.source):
                del self._passed[demand]
                self._probe_at = self._monotonic() + PROBE_PERIOD
                self._refresh(demand)
                return

    # --- slots -------------------------------------------------------------------------------------------------

    def _grant(self, asking: str | None = None) -> None:
        """Grant every free slot to the migration that is next; queue its VM, unless that VM asks now."""
        while self._heads and self._any_free():
            _, uid = self._heads[0]
            first = self._line[uid]
            self._leave(uid)
            if (slot := self._slots.get(first.vm)) is not None:
                slot.again = first.key
                continue
            self._take(first.vm, first.demand.source)
            if first.vm == asking:
                # The grant may be for another migration of the VM; this reconcile uses the slot or gives it back.
                self._slots[first.vm].fresh = False
            else:
                self._wake(first.key)

    def _take(self, uid: str, node: str) -> None:
        self._slots[uid] = _Slot(node, self._times_passed)
        self._leaving[node] += 1
        if self._leaving[node] == self._limits.outbound:
            self._refresh_all(node)

    def _release(self, uid: str) -> bool:
        slot = self._slots.pop(uid)
        freed = self._released(uid)
        node = slot.node
        if slot.again is not None:
            self._wake(slot.again)
        was_full = not self._below_limit(node)
        self._leaving[node] -= 1
        if not self._leaving[node]:
            del self._leaving[node]
        if was_full:
            self._refresh_all(node)
        return freed

    def _refresh_all(self, node: str) -> None:
        for demand in self._at_node.get(node, ()):
            self._refresh(demand)

    def _any_free(self) -> bool:
        return not self._limits.cluster or len(self._slots) < self._limits.cluster

    def _below_limit(self, node: str) -> bool:
        return not self._limits.outbound or self._leaving[node] < self._limits.outbound

    def _limit_reached(self, node: str) -> str:
        if not self._below_limit(node):
            return f"{self._leaving[node]} VMs are leaving {node} already; at most {self._limits.outbound} may at once"
        return f"{len(self._slots)} migrations are in progress; at most {self._limits.cluster} may be at once"


def _discard(sets: dict[str, set[_T]], key: str, item: _T) -> None:
    found = sets[key]
    found.discard(item)
    if not found:
        del sets[key]
