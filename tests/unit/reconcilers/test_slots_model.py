"""The slots in any order of events, against what anybody can work out who sees everything at once.

Promises: never more than the limits; no slot unused while somebody may go; by priority and age among those who may.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.reconcilers.migration.slots import PROBE_PERIOD, Limits, MigrationSlots
from tests.unit.clock import Clock
from tests.unit.reconcilers.test_slots import demand, move, vm

pytestmark = pytest.mark.timeout(120)  # it is seconds of work, and the machine may be busy

NO_ROOM = Refused(Reason.NO_ROOM, "no node has room", for_good=False)
NAMES = ("a", "b", "c")
VMS = st.sampled_from(NAMES)
HOME = {"a": "node-1", "b": "node-1", "c": "node-2"}


@dataclass
class Subject:
    """A VM as the cache shows it, and its migrations that wait."""

    name: str
    uid: str
    version: int = 1
    claimed: bool = False
    shown: bool = False
    """Whether the cache shows the claim."""
    pending: dict[str, tuple[VirtualMachineMigration, Demand]] = field(default_factory=dict)

    def as_shown(self) -> VirtualMachine:
        """What the cache has."""
        return vm(self.name, HOME[self.name], uid=self.uid, version=self.version, moves=self.shown)


class Machine(RuleBasedStateMachine):
    """Does what VMs, people and the API server may do; whoever is queued may be late."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.woken: dict[str, None] = {}
        self.made = 0
        self.vms: dict[str, Subject] = {}
        # Demands that no node has room for since the last change that could have made some.
        self.full: set[Demand] = set()
        # Migrations that asked in their VM's last reconcile.
        self.asking: dict[str, Subject] = {}

    @initialize(cluster=st.sampled_from((1, 2)), outbound=st.sampled_from((1, 2)))
    def begin(self, cluster: int, outbound: int) -> None:
        """Let the VMs appear."""
        self.limits = Limits(cluster, outbound)
        self.slots = MigrationSlots(self.limits, self.woken.setdefault, self.clock)
        for name in NAMES:
            self.appear(name)

    def appear(self, name: str) -> None:
        """Make a VM."""
        self.made += 1
        subject = self.vms[name] = Subject(name, f"{name}-{self.made}", version=10 * self.made)
        self.slots.vm_changed(None, subject.as_shown())

    # --- rules ---------------------------------------------------------------------------------------------------

    @rule(name=VMS, priority=st.sampled_from((0, 1, 3)), cpu=st.sampled_from((1, 9)))
    def wish(self, name: str, priority: int, cpu: int) -> None:
        """Somebody asks for a migration."""
        self.made += 1
        item = move(name, age=self.made % 60, priority=priority, uid=f"m-{self.made}")
        self.vms[name].pending[item.metadata.uid] = item, demand(HOME[name], cpu)
        self.woken[f"default/{name}"] = None

    @rule(name=VMS, room=st.booleans(), outcome=st.sampled_from(("claimed", "refused", "raised")), leaves=st.booleans())
    def reconcile(
        self,
        name: str,
        room: bool,  # noqa: FBT001 - drawn by hypothesis
        outcome: str,
        leaves: bool = False,  # noqa: FBT001, FBT002 - drawn by hypothesis
    ) -> None:
        """A worker takes a VM's key; the VM may leave while it waits for an answer."""
        self.woken.pop(f"default/{name}", None)
        subject = self.vms[name]
        shown = subject.as_shown()
        self._visit(subject, shown, room=room, outcome=outcome, leaves=leaves)
        if self.vms[name] is not subject:  # what was asked for it in between is forgotten at the visit's end
            self._ask_no_more(subject)

    def _visit(self, subject: Subject, shown: VirtualMachine, *, room: bool, outcome: str, leaves: bool) -> None:
        name = subject.name
        with self.slots.visit(shown, lambda: self.vms[name].as_shown()):  # noqa: PLW0108 - another by then
            self._ask_no_more(subject)
            if subject.claimed:
                return
            for item, wanted in sorted(subject.pending.values(), key=lambda pair: pair[0].rank):
                self.asking[item.metadata.uid] = subject
                answer = self.slots.ask(shown, item, wanted)
                self.full &= self.passed()
                if answer is not None:
                    assert (answer is NO_ROOM) == (wanted in self.full)
                    continue
                assert wanted not in self.full, "nobody is looked at whose answer is known"
                if leaves and self.vms[name] is subject:
                    self.leave(name, namesake_at_once=room)
                if self.vms[name] is not subject:
                    self.asking.pop(item.metadata.uid, None)
                    if not room:
                        self.slots.pass_over(shown, item, wanted, NO_ROOM)
                    self.slots.reconsider()
                    self.full.clear()
                    continue
                if not room:
                    self.slots.pass_over(shown, item, wanted, NO_ROOM)
                    self.full.add(wanted)
                    continue
                del self.asking[item.metadata.uid]
                if outcome == "claimed":
                    subject.claimed = True
                    self.slots.claimed(shown, str(subject.version + 1))
                    del subject.pending[item.metadata.uid]
                    self._ask_no_more(subject)
                return

    def _ask_no_more(self, subject: Subject) -> None:
        for uid in subject.pending:
            self.asking.pop(uid, None)

    def passed(self) -> set[Demand]:
        """Which demands are passed over: a probe may have taken one out, once in a while."""
        return set(self.slots._passed)

    @rule(name=VMS)
    def show(self, name: str) -> None:
        """The cache shows a claim."""
        subject = self.vms[name]
        if subject.claimed and not subject.shown:
            before = subject.as_shown()
            subject.shown, subject.version = True, subject.version + 1
            self.slots.vm_changed(before, subject.as_shown())

    @rule(name=VMS)
    def end(self, name: str) -> None:
        """A claim ends, whether or not the cache ever showed it."""
        subject = self.vms[name]
        if subject.claimed:
            before = subject.as_shown()
            subject.claimed = subject.shown = False
            subject.version += 2
            self.slots.vm_changed(before, subject.as_shown())
            self.full.clear()

    @rule(name=VMS, namesake_at_once=st.booleans())
    def leave(self, name: str, namesake_at_once: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """A VM is deleted or leaves the class; a new one has its name."""
        subject = self.vms[name]
        held = subject.claimed or subject.uid in self.slots._slots
        self._ask_no_more(subject)
        self.made += 1
        fresh = Subject(name, f"{name}-{self.made}", version=10 * self.made)
        if namesake_at_once:
            self.slots.vm_changed(subject.as_shown(), fresh.as_shown())
        else:
            self.slots.vm_changed(subject.as_shown(), None)
            self.slots.vm_changed(None, fresh.as_shown())
        self.vms[name] = fresh
        if held:
            self.full.clear()

    @rule(name=VMS)
    def cancel(self, name: str) -> None:
        """The best migration of a VM is deleted."""
        subject = self.vms[name]
        if subject.pending:
            uid = min(subject.pending, key=lambda item: subject.pending[item][0].rank)
            del subject.pending[uid]
            self.asking.pop(uid, None)
            self.reconcile(name, room=True, outcome="refused")

    @rule()
    def node_changes(self) -> None:
        """A node can hold more than before."""
        self.slots.reconsider()
        self.full.clear()

    @rule(seconds=st.sampled_from((1.0, PROBE_PERIOD)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds

    # --- promises ------------------------------------------------------------------------------------------------

    def holders(self) -> list[Subject]:
        """VMs that move, or may claim when their key comes."""
        return [subject for subject in self.vms.values() if subject.claimed or subject.uid in self.slots._slots]

    @invariant()
    def never_more_than_the_limits(self) -> None:
        """In all, and away from each node."""
        if not self.vms:
            return
        holders = self.holders()
        assert len(holders) == len(self.slots._slots), "what holds a slot is a VM that is there"
        assert len(holders) <= self.limits.cluster
        homes = [HOME[subject.name] for subject in holders]
        assert all(homes.count(node) <= self.limits.outbound for node in homes)

    @invariant()
    def no_slot_is_unused_while_somebody_may_go(self) -> None:
        """Whoever asked, and is not known to have no room, has a limit to wait for."""
        if not self.vms or len(self.slots._slots) >= self.limits.cluster:
            return
        homes = [HOME[subject.name] for subject in self.holders()]
        for uid, subject in self.asking.items():
            _, wanted = subject.pending[uid]
            may_go = wanted not in self.passed() and homes.count(HOME[subject.name]) < self.limits.outbound
            assert not may_go or subject in self.holders(), f"{uid} could go"

    @invariant()
    def whoever_was_granted_a_slot_is_queued(self) -> None:
        """Nobody has to look whether it is his turn."""
        for subject in self.vms.values():
            slot = self.slots._slots.get(subject.uid)
            assert slot is None or slot.claimed_at is not None or f"default/{subject.name}" in self.woken

    @invariant()
    def by_priority_and_age(self) -> None:
        """Of those in line that could go, the first is the best; a VM that has a slot needs no other."""
        if not self.vms:
            return
        slots = self.slots
        could = [
            (subject.pending[uid][0].rank, uid)
            for uid, subject in self.asking.items()
            if uid in slots._line
            and subject.uid not in slots._slots
            and subject.pending[uid][1] not in self.passed()
            and slots._below_limit(HOME[subject.name])
        ]
        in_line = [
            place
            for demand in slots._head_of
            for place in slots._demands[demand]
            if slots._line[place[1]].vm not in slots._slots
        ]
        assert min(could, default=None) == min(in_line, default=None)


TestSlots = Machine.TestCase
TestSlots.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
