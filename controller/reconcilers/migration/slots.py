"""Migration slots: how many VMs move at once, in all and away from each node, and whose migration goes next.

A migration asks for a slot before anything that costs; a slot is granted to its VM, which then looks for a node and
claims. Guarantees:

- No slot stays free while a migration in line could use it: it goes to the best rank (priority, then age) of those that
  are not passed over and whose node is below its own limit, and the VM is queued.
- A migration for which no node has room is passed over, and with it all that ask for the same (`Demand`: as much, from
  the same node, to the same nodes), since they would get the same answer. They keep their rank and stand in nobody's
  way until `reconsider`, or, one demand every `PROBE_PERIOD`, until time may have changed the answer. A slot that is
  given back, and room with it, changes the answer only of those that were passed over since it was granted.
- A slot that was granted and not used for a claim by the end of the VM's reconcile is given back, whatever happened.
  One that was used is free again once the cache shows that the claim is gone, or the VM is.
- A migration that did not ask in its VM's last reconcile is not in line. What was asked, granted or held for a VM that
  went meanwhile is forgotten at the end of that reconcile.
- Everything is remembered by UID, so that a namesake inherits nothing. `ask` costs O(log n) comparisons in those that
  wait, `reconsider` O(demands that are passed over).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.changes import revision
from controller.engine.store import gone

_T = TypeVar("_T")

PROBE_PERIOD: Final = 5.0
"""Seconds after which one demand that was passed over is looked at again, although nothing is known to have changed."""

_Place: TypeAlias = tuple[tuple[int, str, str], str]
"""Where a migration stands: its rank, and its UID."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many VMs may move at once; 0 means any number. The defaults are KubeVirt's."""

    cluster: int = 5
    outbound: int = 2


@dataclass(slots=True)
class _Waiting:
    """A migration in line. `asked`: in the reconcile of its VM that is under way, or else in the last one."""

    key: str
    vm: str
    place: _Place
    demand: Demand
    asked: bool = True


@dataclass(slots=True)
class _Slot:
    """A slot in use: away from which node, and as of which version of the VM for a claim (None: not claimed yet).

    `fresh`: the VM's reconcile that may use it has not begun yet. `again`: the VM's key, if it has to be queued when
    the slot is given back, since another of its migrations would have had the next one. `since`: how many times
    anybody had been passed over when it was granted.
    """

    node: str
    since: int
    claimed_at: int | None = None
    fresh: bool = True
    again: str | None = None


class MigrationSlots:
    """Slots in use by VM UID, and the line of migrations that wait for one.

    `wake` queues a VM's key; `released` is told the UID of a VM that has no slot any more, before another gets it, and
    says whether others may have room now.
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
        # The line: by migration UID; which of them are of a VM; in order of each demand; and which demands a node has.
        self._line: dict[str, _Waiting] = {}
        self._of_vm: dict[str, set[str]] = {}
        self._demands: dict[Demand, list[_Place]] = {}
        self._at_node: dict[str, set[Demand]] = {}
        # The first of each demand that could go if a slot were free, in order; and which one that is.
        self._heads: list[_Place] = []
        self._head_of: dict[Demand, _Place] = {}
        # Demands that are passed over, the one that was so longest first: why, and `_times_passed` as of then.
        self._passed: dict[Demand, tuple[Refused, int]] = {}
        self._times_passed = 0
        self._probe_at = 0.0

    # --- what the reconciler does ------------------------------------------------------------------------------

    @contextmanager
    def visit(self, vm: VirtualMachine | None, shown: Callable[[], VirtualMachine | None]) -> Iterator[None]:
        """Enclose one reconcile of a VM: at its end, what did not ask leaves the line, and an unused slot is free.

        `shown` tells at the end which VM the cache has under that name.
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
                self._gone(uid)
            elif slot is None:
                self._hold_nothing(uid)
            elif slot.claimed_at is None and not slot.fresh:
                self.give_back(vm)

    def ask(self, vm: VirtualMachine, item: VirtualMachineMigration, demand: Demand) -> Refused | None:
        """Return None if the VM has a slot now, else what the migration waits for, which is then in line."""
        uid = vm.metadata.uid
        if uid not in self._slots or demand in self._passed:
            self._probe()
            self._enter(vm, item, demand)
            self._grant(asking=uid)
        if (passed := self._passed.get(demand)) is not None:
            return passed[0]  # a slot may be there for another migration of the VM
        slot = self._slots.get(uid)
        if slot is None:
            return Refused(Reason.LIMIT, self._why(demand.source), for_good=False)
        slot.fresh = False
        self._leave(item.metadata.uid)
        return None

    def pass_over(self, vm: VirtualMachine, item: VirtualMachineMigration, demand: Demand, why: Refused) -> None:
        """Take a slot back from a VM for which no node has room; its migration stays in line, with its rank."""
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
        """Keep the slot of a VM whose claim was written, as of this version, until the cache shows its end."""
        slot = self._slots.get(vm.metadata.uid)
        if slot is not None:  # None: the VM is gone by now
            slot.claimed_at = revision(version)

    def give_back(self, vm: VirtualMachine) -> None:
        """Give back a slot that was not used."""
        slot = self._slots.get(vm.metadata.uid)
        if slot is not None and slot.claimed_at is None:
            freed = self._release(vm.metadata.uid)
            self.reconsider(slot.since if freed else self._times_passed)

    def reconsider(self, since: int = 0) -> None:
        """Pass over no more those who were since then: a node, or what is held on it, has changed."""
        while self._passed:
            demand, (_, time) = next(reversed(self._passed.items()))
            if time <= since:
                break
            del self._passed[demand]
            self._refresh(demand)
        self._grant()

    # --- what the cache shows ----------------------------------------------------------------------------------

    def vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Take in the claims of a VM; forget one that is gone, or not ours any more."""
        if (left := gone(old, new)) is not None:
            self._gone(left.metadata.uid)
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

    def _gone(self, uid: str) -> None:
        for waiting in tuple(self._of_vm.get(uid, ())):
            self._leave(waiting)
        if uid in self._slots:
            self._release(uid)
            self.reconsider()
        else:
            self._hold_nothing(uid)

    def _hold_nothing(self, uid: str) -> None:
        """Let a VM without a slot hold no room, which it may have been promised after the slot was gone."""
        if self._released(uid):
            self.reconsider()

    # --- the line ----------------------------------------------------------------------------------------------

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
        """Let the first of a demand stand among those that could go, or no more."""
        places = self._demands.get(demand)
        could_go = places and demand not in self._passed and self._below_limit(demand.source)
        after = places[0] if places and could_go else None
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
        """Let the demand that was passed over longest ago have another look, if it is time and a slot is free."""
        if not self._passed or self._monotonic() < self._probe_at or not self._any_free():
            return
        for demand in self._passed:
            if self._below_limit(demand.source):
                del self._passed[demand]
                self._probe_at = self._monotonic() + PROBE_PERIOD
                self._refresh(demand)
                return

    # --- the slots ---------------------------------------------------------------------------------------------

    def _grant(self, asking: str | None = None) -> None:
        """Give every free slot to whom it belongs; queue them, but for the one that asks."""
        while self._heads and self._any_free():
            _, uid = self._heads[0]
            first = self._line[uid]
            self._leave(uid)
            if (slot := self._slots.get(first.vm)) is not None:
                slot.again = first.key
                continue
            self._take(first.vm, first.demand.source)
            if first.vm == asking:
                # It may be for a migration that does not ask: its reconcile ends with the slot used or given back.
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

    def _why(self, node: str) -> str:
        if not self._below_limit(node):
            return f"{self._leaving[node]} VMs are leaving {node} already; at most {self._limits.outbound} may at once"
        return f"{len(self._slots)} migrations are under way; at most {self._limits.cluster} may be at once"


def _discard(sets: dict[str, set[_T]], key: str, item: _T) -> None:
    found = sets[key]
    found.discard(item)
    if not found:
        del sets[key]
