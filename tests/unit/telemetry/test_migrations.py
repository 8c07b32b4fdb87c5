"""Metrics of migrations under KubeVirt's names, and their downtime.

A link carries 100 bytes a simulated second; the first round sends 1,000.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from controller.domain.copying.constants import ROUND_OVERHEAD
from controller.domain.copying.model import Mode
from controller.domain.objects import MigrationSpec, MigrationStatus, PhaseTime, VirtualMachineMigration
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.kube.meta import ObjectMeta
from controller.telemetry.migrations import MigrationMetrics, MigrationSeries
from tests.unit.observe.builders import BEGAN, CAPACITY, NEVER_CONVERGES, move

SECONDS = "kubevirt_vmi_migration_phase_transition_time_from_creation_seconds"


def at(
    phase: str, *times: tuple[str, str], name: str = "move", version: int = 1, downtime: str | None = None
) -> VirtualMachineMigration:
    """Return a migration (created at 10:30:00) in a phase; the times are phases and seconds of that minute."""
    steps = tuple(PhaseTime(step, f"2026-01-15T10:30:{second}Z") for step, second in times)
    return VirtualMachineMigration(
        metadata=ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            resource_version=str(version),
            creation_timestamp="2026-01-15T10:30:00Z",
        ),
        spec=MigrationSpec(vm_name="vm-1"),
        status=MigrationStatus(phase=phase, phase_transition_timestamps=steps, downtime_seconds=downtime),
    )


PENDING = ("Pending", "00.500000")
TERMINATING = ("Terminating", "01.250000")
SCHEDULING = ("Scheduling", "01.500000")
STARTING = ("Starting", "01.750000")
SUCCEEDED = ("Succeeded", "03.250000")


class Scene:
    """A store of migrations with its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.now = BEGAN
        self.migrations: Store[VirtualMachineMigration] = Store()
        MigrationMetrics(self.registry, [self.migrations])
        self.speed = 1.0
        self._series: MigrationSeries | None = None

    def see(self, *states: VirtualMachineMigration) -> None:
        """Apply states of a migration, one after another."""
        for state in states:
            self.migrations.apply(Change.of(state))

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample."""
        return self.registry.get_sample_value(name, labels)

    def in_phases(self) -> dict[str, float | None]:
        """Return KubeVirt's four gauges."""
        return {
            phase: self.value(f"kubevirt_vmi_migrations_in_{phase}_phase")
            for phase in ("unset", "pending", "scheduling", "running")
        }

    def ended(self, family: str) -> list[dict[str, str]]:
        """Return the labels of the series of finished migrations."""
        return [labels for labels, value in self.samples(family) if value == 1]

    def samples(self, family: str) -> list[tuple[dict[str, str], float]]:
        """Scrape; return the labels and the values of the series of a family."""
        series = self._series = self._series or MigrationSeries(
            [self.migrations], capacity=CAPACITY, speed=self.speed, now=lambda: self.now
        )
        return [
            (sample.labels, sample.value)
            for item in text_string_to_metric_families("".join(series.pieces()))
            if item.name == f"kubevirt_vmi_migration_{family}"
            for sample in item.samples
        ]

    def copied(self, seconds: float = 0.0) -> dict[str, list[float]]:
        """Let some real seconds pass, and scrape; return the values of the four families of migrations that copy."""
        self.now += timedelta(seconds=seconds)
        families = ("data_processed", "data_remaining", "dirty_memory_rate", "memory_transfer_rate")
        return {family: [round(value, 2) for _, value in self.samples(f"{family}_bytes")] for family in families}


def test_migrations_are_counted_in_kubevirts_phases() -> None:
    """Terminating and Starting are KubeVirt's running; a finished migration is in none."""
    scene = Scene()
    assert scene.in_phases() == {"unset": 0, "pending": 0, "scheduling": 0, "running": 0}

    scene.see(at("Pending"))
    assert scene.in_phases() == {"unset": 1, "pending": 0, "scheduling": 0, "running": 0}
    scene.see(at("Pending", PENDING, version=2))
    assert scene.in_phases() == {"unset": 0, "pending": 1, "scheduling": 0, "running": 0}
    scene.see(at("Terminating", PENDING, TERMINATING, version=3))
    assert scene.in_phases() == {"unset": 0, "pending": 0, "scheduling": 0, "running": 1}
    scene.see(at("Scheduling", PENDING, TERMINATING, SCHEDULING, version=4))
    assert scene.in_phases() == {"unset": 0, "pending": 0, "scheduling": 1, "running": 0}
    scene.see(at("Starting", PENDING, TERMINATING, SCHEDULING, STARTING, version=5))
    assert scene.in_phases() == {"unset": 0, "pending": 0, "scheduling": 0, "running": 1}
    scene.see(at("Succeeded", PENDING, TERMINATING, SCHEDULING, STARTING, SUCCEEDED, version=6))
    assert scene.in_phases() == {"unset": 0, "pending": 0, "scheduling": 0, "running": 0}


@pytest.mark.parametrize(
    ("phase", "counted"),
    [
        *(("Scheduling", "scheduling"), ("Scheduled", "running"), ("PreparingTarget", "running")),
        *(("TargetReady", "running"), ("Running", "running")),
    ],
)
def test_a_live_migration_is_counted_as_kubevirt_counts_it(phase: str, counted: str) -> None:
    """As running from when its target has a node."""
    scene = Scene()
    scene.see(at(phase, PENDING, (phase, "02.000000")))
    assert [name for name, count in scene.in_phases().items() if count] == [counted]


def test_transitions_are_timed_from_the_creation() -> None:
    """Transitions that arrive in one write are each counted once."""
    scene = Scene()
    done = (PENDING, TERMINATING, SCHEDULING, STARTING, SUCCEEDED)
    scene.see(
        at("Pending"),
        at("Terminating", PENDING, TERMINATING, version=2),
        at("Succeeded", *done, version=3),
        at("Succeeded", *done, version=4),
    )

    assert scene.value(f"{SECONDS}_sum", phase="Terminating") == 1.25
    assert scene.value(f"{SECONDS}_sum", phase="Succeeded") == 3.25
    assert scene.value(f"{SECONDS}_count", phase="Succeeded") == 1
    assert scene.value(f"{SECONDS}_count", phase="Failed") == 0


def test_a_downtime_is_counted_once_when_it_is_published() -> None:
    """A failed migration whose VM did not run again has none."""
    scene = Scene()
    scene.see(
        at("Pending"),
        at("Succeeded", PENDING, SUCCEEDED, version=2, downtime="0.099"),
        at("Succeeded", PENDING, SUCCEEDED, version=3, downtime="0.099"),
        at("Pending", name="other"),
        at("Failed", PENDING, name="other", version=4),
    )

    assert scene.value("vmsim_migration_downtime_seconds_sum") == 0.099
    assert scene.value("vmsim_migration_downtime_seconds_count") == 1


def test_migrations_finished_before_the_start_are_not_timed() -> None:
    """A restart does not count them again."""
    scene = Scene()
    scene.migrations.replace([at("Succeeded", PENDING, SUCCEEDED, downtime="0.099")], "5")

    assert scene.value(f"{SECONDS}_count", phase="Succeeded") == 0
    assert scene.value("vmsim_migration_downtime_seconds_count") == 0


def test_a_finished_migration_has_a_series_until_it_is_deleted() -> None:
    """In the family of its phase."""
    scene = Scene()
    failed = at("Failed", PENDING, name="other", version=2)
    scene.see(at("Pending", name="waits"), at("Succeeded", PENDING, SUCCEEDED), failed)
    assert scene.ended("succeeded") == [{"vmi": "vm-1", "vmim": "move", "namespace": "default"}]
    assert scene.ended("failed") == [{"vmi": "vm-1", "vmim": "other", "namespace": "default"}]

    scene.migrations.apply(Change.of(failed, deleted=True))
    assert scene.ended("failed") == []


@pytest.mark.parametrize("odd", ["nan", "inf", "-1", "a while", "", "1e999"])
def test_a_malformed_downtime_is_ignored(odd: str) -> None:
    """It would corrupt the histogram's sum for good."""
    scene = Scene()
    scene.see(at("Pending"), at("Succeeded", PENDING, SUCCEEDED, version=2, downtime=odd))

    assert scene.value("vmsim_migration_downtime_seconds_count") == 0
    assert scene.value("vmsim_migration_downtime_seconds_sum") == 0


def started(migration: VirtualMachineMigration, start: str, end: str | None = None) -> VirtualMachineMigration:
    """Return a migration from n1 to n2 that started and ended in these seconds of 10:30."""
    status = msgspec.structs.replace(
        migration.status,
        source_node="n1",
        target_node="n2",
        start_timestamp=f"2026-01-15T10:30:{start}Z",
        end_timestamp=f"2026-01-15T10:30:{end}Z" if end is not None else None,
    )
    return msgspec.structs.replace(migration, status=status)


def copies(
    uid: str = "a", nodes: tuple[str, str] = ("n1", "n2"), *, mode: Mode | None = None, **more: Any
) -> VirtualMachineMigration:
    """Return a live migration of vm-1 that copies since 10:30:00."""
    found = move(uid, nodes, **more)
    record = found.status.copying
    assert record is not None
    if mode is not None:
        record = msgspec.structs.replace(record, checkpoint=msgspec.structs.replace(record.checkpoint, mode=mode))
    return msgspec.structs.replace(
        found,
        metadata=msgspec.structs.replace(found.metadata, resource_version="1"),
        spec=MigrationSpec(vm_name="vm-1"),
        status=msgspec.structs.replace(found.status, copying=record),
    )


def vm_labels(node: str, name: str = "move", **more: str) -> dict[str, str]:
    """Return KubeVirt's labels of a migration of vm-1."""
    return {"namespace": "default", "name": "vm-1", "node": node, "migration_name": name, **more}


def test_a_migration_has_its_start_and_its_end_and_the_node_that_its_vm_is_on() -> None:
    """The source until it has succeeded."""
    scene = Scene()
    scene.see(started(at("Running"), "01.500000"))
    began = BEGAN.timestamp()
    assert scene.samples("start_time_seconds") == [(vm_labels("n1"), began + 1.5)]
    assert scene.samples("end_time_seconds") == []

    scene.see(started(at("Succeeded", version=2), "01.500000", "03.250000"))
    assert scene.samples("start_time_seconds") == [(vm_labels("n2"), began + 1.5)]
    assert scene.samples("end_time_seconds") == [(vm_labels("n2", status="succeeded"), began + 3.25)]

    scene.see(started(at("Failed", version=3), "01.500000", "03.250000"))
    assert scene.samples("end_time_seconds") == [(vm_labels("n1", status="failed"), began + 3.25)]


def test_only_the_last_migration_of_a_vm_has_its_times() -> None:
    """As in KubeVirt; one that has not claimed the VM does not count."""
    scene = Scene()
    scene.see(
        started(at("Succeeded", name="second"), "10.000000", "20.000000"),
        started(at("Failed", name="first"), "01.000000", "02.000000"),
        at("Failed", name="third"),
    )
    assert [labels["migration_name"] for labels, _ in scene.samples("start_time_seconds")] == ["second"]
    assert [labels["migration_name"] for labels, _ in scene.samples("end_time_seconds")] == ["second"]


@pytest.mark.parametrize("odd", ["", "soon", "9999-12-31T23:59:59-23:59"])
def test_a_malformed_time_has_no_series(odd: str) -> None:
    """It costs no other one."""
    scene = Scene()
    broken = started(at("Succeeded", name="odd"), "01.000000", "02.000000")
    status = msgspec.structs.replace(broken.status, start_timestamp=odd, end_timestamp=odd)
    other = msgspec.structs.replace(started(at("Running"), "03.000000"), spec=MigrationSpec(vm_name="vm-2"))
    scene.see(msgspec.structs.replace(broken, status=status), other)
    assert [labels["migration_name"] for labels, _ in scene.samples("start_time_seconds")] == ["move"]
    assert scene.samples("end_time_seconds") == []


def test_a_migration_that_copies_tells_how_far_it_is_between_two_writes() -> None:
    """At the pace of its link, which is also by how much the bytes processed rise in a second."""
    scene = Scene()
    scene.see(copies(dirty_rate=20.0, writable_set=1e9))
    halfway = scene.copied(5 + ROUND_OVERHEAD)
    assert halfway == {
        "data_processed": [500],
        "data_remaining": [605],
        "dirty_memory_rate": [20],
        "memory_transfer_rate": [CAPACITY],
    }
    assert scene.copied(1)["data_processed"] == [600]
    assert [labels for labels, _ in scene.samples("data_processed_bytes")] == [vm_labels("n1", "move-a")]


def test_rates_are_per_real_second() -> None:
    """At speed 10, ten times those of the guest and of the link."""
    scene = Scene()
    scene.speed = 10.0
    scene.see(copies(dirty_rate=20.0, writable_set=1e9))
    first, then = scene.copied((2 + ROUND_OVERHEAD) / 10), scene.copied(0.1)
    assert (first["dirty_memory_rate"], first["memory_transfer_rate"]) == ([200], [10 * CAPACITY])
    risen = then["data_processed"][0] - first["data_processed"][0]
    assert risen / 0.1 == pytest.approx(first["memory_transfer_rate"][0])


def test_a_guest_that_is_stopped_or_on_the_target_dirties_nothing() -> None:
    """Nothing of it would have to be sent again."""
    scene = Scene()
    scene.see(copies(mode=Mode.PAUSED, dirty_rate=20.0, writable_set=1e9))
    assert scene.copied()["dirty_memory_rate"] == [0]


def test_migrations_that_share_a_link_are_shown_with_their_shares() -> None:
    """And what was copied before the other one began stays copied: it was scraped in between."""
    scene = Scene()
    scene.see(copies("a"))
    scene.copied(5 + ROUND_OVERHEAD)
    scene.see(copies("b", began=BEGAN + timedelta(seconds=5)))
    assert scene.copied()["memory_transfer_rate"] == [50, 50]
    assert scene.copied(1)["data_processed"][0] == 550


def test_two_replicas_tell_the_same() -> None:
    """Whether they were scraped before or not."""
    scenes = Scene(), Scene()
    for scene in scenes:
        scene.see(copies("a", **NEVER_CONVERGES), copies("b", ("n1", "n3")))
    often, once = scenes
    for _ in range(9):
        often.copied(1)
    assert often.copied(1) == once.copied(10)


def test_a_migration_that_has_ended_copies_no_more() -> None:
    """Nor does one whose record is odd, or one that has not begun to copy."""
    scene = Scene()
    scene.see(copies("a", phase="Failed"), copies("b", jitter=float("nan")), at("Scheduling"))
    assert set(map(tuple, scene.copied(1).values())) == {()}


def test_no_piece_computes_more_than_one_migration() -> None:
    """So that a hundred that copy do not block the event loop."""
    scene = Scene()
    scene.see(*(copies(f"move-{number}", (f"n{number}", f"m{number}")) for number in range(100)))
    series = MigrationSeries([scene.migrations], capacity=CAPACITY, speed=1, now=lambda: scene.now)
    assert list(series.pieces()).count("") >= 100
