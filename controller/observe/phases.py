"""The number of VMs and migrations in each phase, and the times of their phase transitions.

Guarantees: a change costs O(1). Each transition and each downtime is reported once, even when one write contains
several; those from before the start of this process are not reported, and of a VM only the transitions of its first
incarnation are. An object whose change fails alters no count.
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
    """The phases of the VMs of some stores. `arrived` observes, by phase, the seconds since a VM's creation."""

    def __init__(self, vms: Iterable[Store[VirtualMachine]], arrived: Mapping[str, Report]) -> None:
        self.counts: Counter[str] = Counter()
        """VMs by phase."""
        self._arrived = arrived
        listener = Subscription[VirtualMachine](self._changed, name="VMMetrics", reset=self.counts.clear)
        for store in vms:
            store.subscribe(listener)

    def _changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        arrivals = _arrivals(old, new)  # may raise, so it precedes the first change of a count
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

    `arrived` observes, by phase, the seconds since a migration's creation; `down` observes the seconds for which a
    migrated VM did not run.
    """

    def __init__(
        self, migrations: Iterable[Store[VirtualMachineMigration]], arrived: Mapping[str, Report], down: Report
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Migrations by phase; the phase is empty until the controller has published one."""
        self._arrived = arrived
        self._down = down
        listener = Subscription[VirtualMachineMigration](
            self._changed, name="MigrationMetrics", reset=self.counts.clear
        )
        for store in migrations:
            store.subscribe(listener)

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        steps, down = _steps(old, new), _downtime(old, new)  # may raise, so it precedes the first change of a count
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
    """Return the downtime that a change publishes, in seconds; None if it publishes none."""
    if old is None or new is None or old.metadata.uid != new.metadata.uid or old.status.downtime_seconds is not None:
        return None
    return downtime(new)


def _phase(migration: VirtualMachineMigration) -> str:
    """Return the phase; empty until the controller has published one, since the schema's default does not count."""
    return migration.status.phase if migration.status.phase_transition_timestamps else ""
