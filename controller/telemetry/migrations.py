"""Metrics of migrations, under KubeVirt's names: their phases, their times, and what live ones copy; and the downtime.

Guarantees: every phase has its series from the start, with 0; the series of a migration are removed when it is deleted;
a scrape is rendered in pieces. What is copied is computed from the migrations and the clock, alike by every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.domain.copying.model import Mode
from controller.domain.migration.phases import MigrationPhase
from controller.domain.objects import VirtualMachineMigration
from controller.engine.store import Store
from controller.kube.times import parse_timestamp
from controller.observe import copying
from controller.observe.copying import Progress
from controller.observe.phases import MigrationPhases
from controller.telemetry import transitions
from controller.telemetry.exposition import header, label

_DOWNTIME_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MIGRATIONS_A_PIECE: Final = 250
_IN_PHASE: Final = {
    "pending": ("Number of current pending migrations.", (MigrationPhase.PENDING,)),
    "scheduling": ("Number of current scheduling migrations.", (MigrationPhase.SCHEDULING,)),
    "running": (
        "Number of current running migrations: the source goes, or the target has a node.",
        (
            MigrationPhase.TERMINATING,
            MigrationPhase.STARTING,
            MigrationPhase.SCHEDULED,
            MigrationPhase.PREPARING_TARGET,
            MigrationPhase.TARGET_READY,
            MigrationPhase.RUNNING,
        ),
    ),
    "unset": ("Number of current unset migrations: no controller has taken them up yet.", ("",)),
}

_START: Final = "kubevirt_vmi_migration_start_time_seconds"
_END: Final = "kubevirt_vmi_migration_end_time_seconds"


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
    """The series of single migrations: of all that are finished, of the last of each VM, and of those that copy.

    `capacity` is that of each direction of a node, in bytes of memory a simulated second; `speed` is the simulated
    seconds in a real one. Rates are told by the real second, which is that of Prometheus.
    """

    def __init__(
        self,
        migrations: Sequence[Store[VirtualMachineMigration]],
        *,
        capacity: float,
        speed: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._migrations = migrations
        self._capacity = capacity
        self._speed = speed
        self._now = now
        # Replaced as a whole, since scrapes may overlap.
        self._progress = copying.NONE

    def pieces(self) -> Iterator[str]:
        """Yield the families of an exposition."""
        ended: dict[str, list[str]] = {"succeeded": [], "failed": []}
        last: dict[tuple[str | None, str], VirtualMachineMigration] = {}
        going: list[VirtualMachineMigration] = []
        for store in self._migrations:
            for count, migration in enumerate(list(store), 1):
                if migration.finished:
                    family = migration.status.phase.lower()
                    ended[family].append(_series(family, migration))
                else:
                    going.append(migration)
                if (start := migration.status.start_timestamp) is not None:
                    vm = (migration.metadata.namespace, migration.spec.vm_name)
                    if vm not in last or start > (last[vm].status.start_timestamp or ""):
                        last[vm] = migration
                if count % _MIGRATIONS_A_PIECE == 0:
                    yield ""
        for family, series in ended.items():
            yield header(f"kubevirt_vmi_migration_{family}", f"Indicates if the VMI migration {family}.")
            yield "".join(series)
        yield from _times(last.values())
        yield from self._copying(going)

    def _copying(self, going: Sequence[VirtualMachineMigration]) -> Iterator[str]:
        """Yield the families of the live migrations that copy."""
        found = copying.NONE
        for step in copying.stepwise(
            going, capacity=self._capacity, speed=self._speed, now=self._now(), before=self._progress
        ):
            found = step
            yield ""
        self._progress = found
        shown = [(_labels(item), found[item.metadata.uid]) for item in going if item.metadata.uid in found]
        for name, (text, value) in _COPYING.items():
            yield header(name, text)
            yield "".join(f"{name}{{{labels}}} {value(one, self._speed)!r}\n" for labels, one in shown)


def _series(family: str, migration: VirtualMachineMigration) -> str:
    metadata = migration.metadata
    return (
        f'kubevirt_vmi_migration_{family}{{namespace="{metadata.namespace}",vmi="{label(migration.spec.vm_name)}",'
        f'vmim="{metadata.name}"}} 1\n'
    )


def _times(migrations: Iterable[VirtualMachineMigration]) -> Iterator[str]:
    """Yield when these migrations, which claimed their VMs, started and ended."""
    starts, ends = [], []
    for count, migration in enumerate(migrations, 1):
        status, labels = migration.status, _labels(migration)
        if (start := parse_timestamp(status.start_timestamp)) is not None:
            starts.append(f"{_START}{{{labels}}} {start.timestamp()!r}\n")
        if migration.finished and (end := parse_timestamp(status.end_timestamp)) is not None:
            ends.append(f'{_END}{{{labels},status="{status.phase.lower()}"}} {end.timestamp()!r}\n')
        if count % _MIGRATIONS_A_PIECE == 0:
            yield ""
    yield header(_START, "The time at which the migration started.")
    yield "".join(starts)
    yield header(_END, "The time at which the migration ended.")
    yield "".join(ends)


def _labels(migration: VirtualMachineMigration) -> str:
    """Return KubeVirt's labels; the node is the VM's: the source until the migration has succeeded."""
    metadata, status = migration.metadata, migration.status
    node = status.target_node if status.phase == MigrationPhase.SUCCEEDED else status.source_node
    return (
        f'namespace="{metadata.namespace}",name="{label(migration.spec.vm_name)}",node="{label(node or "")}",'
        f'migration_name="{metadata.name}"'
    )


def _dirty_rate(found: Progress, speed: float) -> float:
    """Return the bytes that a guest dirties in a real second; what it writes after pre-copy is not sent again."""
    return found.dirty_rate * speed if found.checkpoint.mode is Mode.PRE_COPY else 0.0


_COPYING: Final[dict[str, tuple[str, Callable[[Progress, float], float]]]] = {
    "kubevirt_vmi_migration_data_processed_bytes": (
        "The total Guest OS data processed and migrated to the new VM.",
        lambda found, _: found.checkpoint.sent,
    ),
    "kubevirt_vmi_migration_data_remaining_bytes": (
        "The remaining guest OS data to be migrated to the new VM.",
        lambda found, _: found.checkpoint.rest,
    ),
    "kubevirt_vmi_migration_dirty_memory_rate_bytes": (
        "The rate of memory being dirty in the Guest OS.",
        _dirty_rate,
    ),
    "kubevirt_vmi_migration_memory_transfer_rate_bytes": (
        "The rate at which the memory is being transferred.",
        lambda found, speed: found.pace * speed,
    ),
}
"""The families of migrations that copy: the help text, and the value of a move at a speed."""
