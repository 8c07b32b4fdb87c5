"""Metrics of migrations: their phases, under KubeVirt's names, and the downtime of their VMs.

Guarantees: every phase has its series from the start, with 0; the series of a migration are removed when it is deleted;
a scrape is rendered in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.domain.migration.phases import MigrationPhase
from controller.domain.objects import VirtualMachineMigration
from controller.engine.store import Store
from controller.observe.phases import MigrationPhases
from controller.telemetry import transitions
from controller.telemetry.exposition import header, label

_DOWNTIME_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MIGRATIONS_A_PIECE: Final = 250
_IN_PHASE: Final = {
    "pending": ("Number of current pending migrations.", (MigrationPhase.PENDING,)),
    "scheduling": ("Number of current scheduling migrations.", (MigrationPhase.SCHEDULING, MigrationPhase.SCHEDULED)),
    "running": (
        "Number of current running migrations: the source goes, or the target has a node.",
        (
            MigrationPhase.TERMINATING,
            MigrationPhase.STARTING,
            MigrationPhase.PREPARING_TARGET,
            MigrationPhase.TARGET_READY,
            MigrationPhase.RUNNING,
        ),
    ),
    "unset": ("Number of current unset migrations: no controller has taken them up yet.", ("",)),
}


class MigrationMetrics(Collector):
    """Collects the number of migrations in each of KubeVirt's phases, over some stores."""

    def __init__(self, registry: CollectorRegistry, migrations: Sequence[Store[VirtualMachineMigration]]) -> None:
        arrived = transitions.histograms(
            registry,
            "kubevirt_vmi_migration_phase_transition_time_from_creation_seconds",
            "Histogram of VM migration phase transitions duration from creation time in seconds.",
            MigrationPhase,
        )
        down = Histogram(
            "vmsim_migration_downtime_seconds",
            "How long a VM that moved was not running.",
            buckets=_DOWNTIME_BUCKETS,
            registry=registry,
        )
        self._phases = MigrationPhases(migrations, arrived, down.observe)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        for name, (text, phases) in _IN_PHASE.items():
            count = sum(self._phases.counts[phase] for phase in phases)
            yield GaugeMetricFamily(f"kubevirt_vmi_migrations_in_{name}_phase", text, value=count)


class MigrationSeries:
    """One series for each finished migration. The controller retains the last five of a VM."""

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
