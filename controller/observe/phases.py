"""How many VMs and migrations there are in each phase, and how long they took to get there.

Guarantees: a change costs O(1); a transition and a downtime are reported once, although several may arrive in one
write; those from before this process came are not, nor what a VM did in a later life than the one that its creation
began; an object that cannot be taken in changes no count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from controller.domain.migration.phases import downtime
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.vm.status import first_steps
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.times import seconds_between

Report: TypeAlias = Callable[[float], None]
"""Called with seconds."""


class VMPhases:
    """The phases of the VMs of some stores. `arrived` hears the seconds from a VM's creation to each phase it names."""

    def __init__(self, vms: Iterable[Store[VirtualMachine]], arrived: Mapping[str, Report]) -> None:
        self.counts: Counter[str] = Counter()
        """VMs by phase."""
        self._arrived = arrived
        listener = Subscription[VirtualMachine](self._changed, name="VMMetrics", reset=self.counts.clear)
        for store in vms:
            store.subscribe(listener)

    def _changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        arrivals = _arrivals(old, new)  # what may fail comes before the first change
        if old is not None:
            self.counts[old.status.phase] -= 1
        if new is not None:
            self.counts[new.status.phase] += 1
        for phase, seconds in arrivals:
            if phase in self._arrived:
                self._arrived[phase](seconds)


def _arrivals(old: VirtualMachine | None, new: VirtualMachine | None) -> list[tuple[str, float]]:
    """Return the phases that a change shows for the first time, with the seconds from the VM's creation to each."""
    if old is None or new is None or old.status.conditions == new.status.conditions:
        return []
    created = new.metadata.creation_timestamp
    times = ((step.phase, seconds_between(created, step.at)) for step in first_steps(old, new))
    return [(phase, seconds) for phase, seconds in times if seconds is not None]


class MigrationPhases:
    """The phases of the migrations of some stores.

    `arrived` hears the seconds from a migration's creation to each phase it names, `down` for how long a VM that moved
    was not running.
    """

    def __init__(
        self, migrations: Iterable[Store[VirtualMachineMigration]], arrived: Mapping[str, Report], down: Report
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Migrations by phase; it is empty until the controller has said one."""
        self._arrived = arrived
        self._down = down
        listener = Subscription[VirtualMachineMigration](
            self._changed, name="MigrationMetrics", reset=self.counts.clear
        )
        for store in migrations:
            store.subscribe(listener)

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        steps, down = _steps(old, new), _downtime(old, new)  # what may fail comes before the first change
        if old is not None:
            self.counts[_phase(old)] -= 1
        if new is not None:
            self.counts[_phase(new)] += 1
        for phase, seconds in steps:
            if phase in self._arrived:
                self._arrived[phase](seconds)
        if down is not None:
            self._down(down)


def _steps(old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> list[tuple[str, float]]:
    """Return the phases that a change adds, with the seconds from the migration's creation to each."""
    if old is None or new is None or old.metadata.uid != new.metadata.uid:
        return []
    created = new.metadata.creation_timestamp
    added = new.status.phase_transition_timestamps[len(old.status.phase_transition_timestamps) :]
    times = ((step.phase, seconds_between(created, step.phase_transition_timestamp)) for step in added)
    return [(phase, seconds) for phase, seconds in times if seconds is not None]


def _downtime(old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> float | None:
    """Return the downtime that a change tells, in seconds; None if it tells none."""
    if old is None or new is None or old.metadata.uid != new.metadata.uid or old.status.downtime_seconds is not None:
        return None
    return downtime(new)


def _phase(migration: VirtualMachineMigration) -> str:
    """Return the phase; empty until the controller has said one, since the schema's default is no word of its own."""
    return migration.status.phase if migration.status.phase_transition_timestamps else ""
