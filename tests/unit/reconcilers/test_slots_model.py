"""The slots under any order of events, against a model that sees all state at once.

Promises: never more than the limits; no slot free while a migration could use it; granted by priority and age.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controller.domain.migration.demand import Demand
from controller.domain.migration.limits import Limits
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.reconcilers.migration.slots import PROBE_PERIOD, MigrationSlots
from tests.unit.clock import Clock
from tests.unit.reconcilers.test_slots import demand, move, vm

pytestmark = pytest.mark.timeout(120)  # seconds of work, on a machine that may be busy

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
    """Acts as VMs, users and the API server; a queued key may be taken late."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.woken: dict[str, None] = {}
        self.made = 0
        self.vms: dict[str, Subject] = {}
        # Demands for which no node has capacity, since the last change that could have freed some.
        self.full: set[Demand] = set()
        # Migrations that asked in their VM's last reconcile.
        self.asking: dict[str, Subject] = {}

    @initialize(cluster=st.sampled_from((1, 2)), outbound=st.sampled_from((1, 2)))
    def begin(self, cluster: int, outbound: int) -> None:
        """Create the VMs."""
        self.limits = Limits(cluster, outbound)
        self.slots = MigrationSlots(self.limits, self.woken.setdefault, self.clock)
        for name in NAMES:
            self.create(name)

    def create(self, name: str) -> None:
        """Create a VM."""
        self.made += 1
        subject = self.vms[name] = Subject(name, f"{name}-{self.made}", version=10 * self.made)
        self.slots.vm_changed(None, subject.as_shown())

    # --- rules ---------------------------------------------------------------------------------------------------

    @rule(name=VMS, priority=st.sampled_from((0, 1, 3)), cpu=st.sampled_from((1, 9)))
    def migrate(self, name: str, priority: int, cpu: int) -> None:
        """A user creates a migration."""
        self.made += 1
        item = move(name, age=self.made % 60, priority=priority, uid=f"m-{self.made}")
        self.vms[name].pending[item.metadata.uid] = item, demand(HOME[name], cpu)
        self.woken[f"default/{name}"] = None

    @rule(
        name=VMS, fits=st.booleans(), outcome=st.sampled_from(("claimed", "refused", "raised")), deleted=st.booleans()
    )
    def reconcile(
        self,
        name: str,
        fits: bool,  # noqa: FBT001 - drawn by hypothesis
        outcome: str,
        deleted: bool = False,  # noqa: FBT001, FBT002 - drawn by hypothesis
    ) -> None:
        """A worker takes a VM's key; the VM may be deleted while it waits for an answer."""
        self.woken.pop(f"default/{name}", None)
        subject = self.vms[name]
        shown = subject.as_shown()
        self._visit(subject, shown, fits=fits, outcome=outcome, deleted=deleted)
        if self.vms[name] is not subject:  # its requests since then are dropped at the end of the visit
            self._ask_no_more(subject)

    def _visit(self, subject: Subject, shown: VirtualMachine, *, fits: bool, outcome: str, deleted: bool) -> None:
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
                assert wanted not in self.full, "no demand is examined whose answer is known"
                if deleted and self.vms[name] is subject:
                    self.delete(name, namesake_at_once=fits)
                if self.vms[name] is not subject:
                    self.asking.pop(item.metadata.uid, None)
                    if not fits:
                        self.slots.pass_over(shown, item, wanted, NO_ROOM)
                    self.slots.reconsider()
                    self.full.clear()
                    continue
                if not fits:
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
        """Return the demands that are passed over; a probe may have removed one."""
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
    def delete(self, name: str, namesake_at_once: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """A VM is deleted or changes its class; a namesake is created."""
        subject = self.vms[name]
        had_slot = subject.claimed or subject.uid in self.slots._slots
        self._ask_no_more(subject)
        self.made += 1
        fresh = Subject(name, f"{name}-{self.made}", version=10 * self.made)
        if namesake_at_once:
            self.slots.vm_changed(subject.as_shown(), fresh.as_shown())
        else:
            self.slots.vm_changed(subject.as_shown(), None)
            self.slots.vm_changed(None, fresh.as_shown())
        self.vms[name] = fresh
        if had_slot:
            self.full.clear()

    @rule(name=VMS)
    def cancel(self, name: str) -> None:
        """The best migration of a VM is deleted."""
        subject = self.vms[name]
        if subject.pending:
            uid = min(subject.pending, key=lambda item: subject.pending[item][0].rank)
            del subject.pending[uid]
            self.asking.pop(uid, None)
            self.reconcile(name, fits=True, outcome="refused")

    @rule()
    def node_changes(self) -> None:
        """A node accepts more pods than before."""
        self.slots.reconsider()
        self.full.clear()

    @rule(seconds=st.sampled_from((1.0, PROBE_PERIOD)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds

    # --- promises ------------------------------------------------------------------------------------------------

    def holders(self) -> list[Subject]:
        """Return the VMs that move, or may claim when their key is taken."""
        return [subject for subject in self.vms.values() if subject.claimed or subject.uid in self.slots._slots]

    @invariant()
    def never_more_than_the_limits(self) -> None:
        """In all, and away from each node."""
        if not self.vms:
            return
        holders = self.holders()
        assert len(holders) == len(self.slots._slots), "each slot is used by an existing VM"
        assert len(holders) <= self.limits.cluster
        homes = [HOME[subject.name] for subject in holders]
        assert all(homes.count(node) <= self.limits.outbound for node in homes)

    @invariant()
    def no_slot_is_free_while_a_migration_could_use_it(self) -> None:
        """A migration that asked, and is not passed over, waits for a limit only."""
        if not self.vms or len(self.slots._slots) >= self.limits.cluster:
            return
        homes = [HOME[subject.name] for subject in self.holders()]
        for uid, subject in self.asking.items():
            _, wanted = subject.pending[uid]
            eligible = wanted not in self.passed() and homes.count(HOME[subject.name]) < self.limits.outbound
            assert not eligible or subject in self.holders(), f"{uid} could use a slot"

    @invariant()
    def a_vm_with_a_granted_slot_is_queued(self) -> None:
        """Without a further event."""
        for subject in self.vms.values():
            slot = self.slots._slots.get(subject.uid)
            assert slot is None or slot.claimed_at is not None or f"default/{subject.name}" in self.woken

    @invariant()
    def by_priority_and_age(self) -> None:
        """The best rank is first among the migrations that could be granted a slot; a VM with a slot needs no other."""
        if not self.vms:
            return
        slots = self.slots
        eligible = [
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
        assert min(eligible, default=None) == min(in_line, default=None)


TestSlots = Machine.TestCase
TestSlots.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
