"""The judgement of a soak: leaks, and VMs that are not as wanted."""

from __future__ import annotations

from collections import Counter

from tests.faults.builders import migration, pod, seen, vm
from tests.faults.soaked import Sample, Soaked, SoakPlan, unfinished
from tests.faults.witness import ClusterState, Object

MIB = 2**20


def soaked(*samples: Sample) -> Soaked:
    """Return the result of a soak of 100 seconds."""
    return Soaked(SoakPlan(100.0, 1), samples, Counter(), Counter(), Counter(), 0, 1.0, ())


def cluster(*items: Object) -> ClusterState:
    """Return the state with these objects."""
    made = ClusterState()
    for item in items:
        made.apply(seen(item))
    return made


def test_the_slope_is_per_hour_and_excludes_the_warm_up() -> None:
    """A MiB every ten seconds; the jump in the first quarter does not count."""
    samples = [Sample(0.0, 1 * MIB, 9, 9), *(Sample(at, (50 + at / 10) * MIB, 9, 9) for at in (30.0, 60.0, 90.0))]
    assert round(soaked(*samples).slope) == 360


def test_level_memory_has_no_slope() -> None:
    """Too few samples have none, either."""
    assert soaked(*(Sample(at, MIB, 9, 9) for at in (30.0, 60.0, 90.0))).slope == 0.0
    assert soaked(Sample(90.0, MIB, 9, 9)).slope == 0.0


def test_growth_compares_medians_and_ignores_a_peak() -> None:
    """The last quarter against the second."""
    descriptors = (5, 5, 5, 5, 5, 40, 5, 5, 5, 8, 8, 8)
    samples = [Sample(float(at), MIB, count, 9) for at, count in enumerate(descriptors)]
    assert soaked(*samples).growth(lambda sample: sample.descriptors) == 3


def test_objects_that_are_not_as_wanted_are_unfinished() -> None:
    """Lost, not running, not stopped, orphaned, still moving."""
    there = cluster(vm("Pending", name="waits"), vm("Pending", "Running", uid="u2", name="runs"))
    assert list(unfinished(there, {"lost": True, "waits": True, "runs": False})) == [
        "VM lost is lost",
        "VM waits is Pending with 0 pods where it should run",
        "VM runs is Running with 0 pods where it should be stopped",
    ]
    assert list(unfinished(cluster(pod("p1"), migration("Scheduling")), {})) == [
        "pod virt-launcher-p1 has no VM",
        "migration move is Scheduling: None",
    ]


def test_objects_that_are_as_wanted_are_finished() -> None:
    """A migration that backs off for an hour has not begun."""
    there = cluster(
        vm("Pending", "Running", podUID="p1"),
        pod("p1"),
        vm("Pending", "Stopped", uid="u2", name="stopped"),
        migration("Succeeded"),
        migration("Pending", reason="MigrationBackoff", name="later"),
    )
    assert list(unfinished(there, {"vm": True, "stopped": False})) == []
