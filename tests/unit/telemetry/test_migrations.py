"""Metrics of migrations under KubeVirt's names, and their downtime."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from controller.domain.objects import MigrationSpec, MigrationStatus, PhaseTime, VirtualMachineMigration
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.kube.meta import ObjectMeta
from controller.telemetry.migrations import MigrationMetrics, MigrationSeries

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
        self.migrations: Store[VirtualMachineMigration] = Store()
        MigrationMetrics(self.registry, [self.migrations])

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
        text = "".join(MigrationSeries([self.migrations]).pieces())
        return [
            sample.labels
            for item in text_string_to_metric_families(text)
            if item.name == f"kubevirt_vmi_migration_{family}"
            for sample in item.samples
            if sample.value == 1
        ]


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
