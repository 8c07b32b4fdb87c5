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

from controller.domain.migration import MigrationPhase
from controller.domain.objects import VirtualMachineMigration
from controller.domain.status import seconds_between
from controller.engine.store import Store
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
        for store in migrations:
            store.listen(self._changed)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        for name, (text, phases) in _IN_PHASE.items():
            count = sum(self._phases[phase] for phase in phases)
            yield GaugeMetricFamily(f"kubevirt_vmi_migrations_in_{name}_phase", text, value=count)

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        if old is not None:
            self._phases[_phase(old)] -= 1
        if new is not None:
            self._phases[_phase(new)] += 1
        if old is None or new is None or old.metadata.uid != new.metadata.uid:
            return
        for step in new.status.phase_transition_timestamps[len(old.status.phase_transition_timestamps) :]:
            seconds = seconds_between(new.metadata.creation_timestamp, step.phase_transition_timestamp)
            if step.phase in self._seconds and seconds is not None:
                self._seconds[step.phase].observe(seconds)
        if old.status.downtime_seconds is None and (downtime := _seconds(new.status.downtime_seconds)) is not None:
            self._downtime.observe(downtime)


def _phase(migration: VirtualMachineMigration) -> str:
    """Return the phase; empty until the controller has said one, since the schema's default is no word of its own."""
    return migration.status.phase if migration.status.phase_transition_timestamps else ""


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


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
