"""What the migrations do, under KubeVirt's names, and how long their VMs were away.

Guarantees: a change of a migration costs O(1); a transition and a downtime are counted once, and not those from before
this process came; the series of a migration go with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.domain.migration.machine import MigrationPhase, downtime
from controller.domain.objects import VirtualMachineMigration
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.times import seconds_between
from controller.telemetry.exposition import header, label
from controller.telemetry.vms import TRANSITION_BUCKETS

_DOWNTIME_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MIGRATIONS_A_PIECE: Final = 250
_IN_PHASE: Final = {
    "pending": ("Number of current pending migrations.", (MigrationPhase.PENDING,)),
    "scheduling": ("Number of current scheduling migrations.", (MigrationPhase.SCHEDULING,)),
    "running": (
        "Number of current running migrations: the source goes, or the target has a node.",
        (MigrationPhase.TERMINATING, MigrationPhase.STARTING),
    ),
    "unset": ("Number of current unset migrations: no controller has taken them up yet.", ("",)),
}


class MigrationMetrics(Collector):
    """The migrations of some stores. As a collector it tells how many there are in each of KubeVirt's phases."""

    def __init__(self, registry: CollectorRegistry, migrations: Sequence[Store[VirtualMachineMigration]]) -> None:
        self._phases: Counter[str] = Counter()
        seconds = Histogram(
            "kubevirt_vmi_migration_phase_transition_time_from_creation_seconds",
            "Histogram of VM migration phase transitions duration from creation time in seconds.",
            ("phase",),
            buckets=TRANSITION_BUCKETS,
            registry=registry,
        )
        self._seconds = {phase.value: seconds.labels(phase.value) for phase in MigrationPhase}
        self._downtime = Histogram(
            "vmsim_migration_downtime_seconds",
            "How long a VM that moved was not running.",
            buckets=_DOWNTIME_BUCKETS,
            registry=registry,
        )
        listener = Subscription[VirtualMachineMigration](
            self._changed, name="MigrationMetrics", reset=self._phases.clear
        )
        for store in migrations:
            store.subscribe(listener)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        for name, (text, phases) in _IN_PHASE.items():
            count = sum(self._phases[phase] for phase in phases)
            yield GaugeMetricFamily(f"kubevirt_vmi_migrations_in_{name}_phase", text, value=count)

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        arrivals, downtime = _arrivals(old, new), _downtime(old, new)  # what may fail comes before the first change
        if old is not None:
            self._phases[_phase(old)] -= 1
        if new is not None:
            self._phases[_phase(new)] += 1
        for phase, seconds in arrivals:
            if phase in self._seconds:
                self._seconds[phase].observe(seconds)
        if downtime is not None:
            self._downtime.observe(downtime)


def _arrivals(old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> list[tuple[str, float]]:
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


class MigrationSeries:
    """One series for each migration that has ended. The controller keeps the last five of a VM."""

    def __init__(self, migrations: Sequence[Store[VirtualMachineMigration]]) -> None:
        self._migrations = migrations

    def pieces(self) -> Iterator[str]:
        """Yield the families of an exposition."""
        ended: dict[str, list[str]] = {"succeeded": [], "failed": []}
        for store in self._migrations:
            for count, migration in enumerate(list(store), 1):
                if migration.finished:
                    family = migration.status.phase.lower()
                    ended[family].append(_series(family, migration))
                if count % _MIGRATIONS_A_PIECE == 0:
                    yield ""
        for family, series in ended.items():
            yield header(f"kubevirt_vmi_migration_{family}", f"Indicates if the VMI migration {family}.")
            yield "".join(series)


def _series(family: str, migration: VirtualMachineMigration) -> str:
    metadata = migration.metadata
    return (
        f'kubevirt_vmi_migration_{family}{{namespace="{metadata.namespace}",vmi="{label(migration.spec.vm_name)}",'
        f'vmim="{metadata.name}"}} 1\n'
    )
