"""How long a pod has waited for its scheduler, and what a burst makes of timers."""

from __future__ import annotations

import msgspec

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.reconcilers.vm.schedulers import Schedulers
from tests.model.cluster import Cluster
from tests.unit.domain.builders import pod, vm
from tests.unit.reconcilers.harness import Process


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_scheduler_that_reports_about_another_pod_is_not_silent() -> None:
    """A long queue is no silence, and a clock that is wrong no matter."""
    clock = Clock()
    schedulers = Schedulers(clock)
    first, second = pod(vm(uid="a")), pod(vm(uid="b"))
    assert [schedulers.waited(first), schedulers.waited(second)] == [0, 0]
    clock.now += 4
    schedulers.pod_changed(first, pod(vm(uid="a"), node="kwok-node-1"))
    clock.now += 4
    assert schedulers.waited(second) == 4


def test_a_pod_that_is_deleted_unnoticed_is_no_report() -> None:
    """Nor is one that begins to terminate."""
    clock = Clock()
    schedulers = Schedulers(clock)
    first, second, third = pod(vm(uid="a")), pod(vm(uid="b")), pod(vm(uid="c"))
    for each in (first, second, third):
        schedulers.waited(each)
    clock.now += 8
    schedulers.pod_changed(first, None)
    schedulers.pod_changed(second, pod(vm(uid="b"), terminating=True))
    assert schedulers.waited(third) == 8


def test_another_schedulers_report_does_not_count() -> None:
    """Each by its name."""
    clock = Clock()
    schedulers = Schedulers(clock)
    other = vm(uid="b")
    other = msgspec.structs.replace(other, spec=msgspec.structs.replace(other.spec, scheduler_name="packing"))
    first, second = pod(vm(uid="a")), pod(other)
    assert [schedulers.waited(first), schedulers.waited(second)] == [0, 0]
    clock.now += 6
    schedulers.pod_changed(second, pod(other, node="kwok-node-1"))
    assert schedulers.waited(first) == 6


async def test_a_boot_ends_in_time_in_a_burst() -> None:
    """Its end causes no event, so the wait of the burst must not swallow it."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(100):
        cluster.apply_vm(f"vm-{number}", cpu="0.001", memory="0.001")
        cluster.edit(VIRTUAL_MACHINES, f"default/vm-{number}", annotations={names.BOOT_TIME: "1s"})
    process = Process(cluster)
    process.deliver()
    await process.step()
    cluster.run_pods()
    process.deliver()
    results = [await process.reconcile(f"default/vm-{number}") for number in range(100)]
    assert all(0 < (getattr(result, "requeue_after", None) or 0) <= 1 for result in results)
    process.deliver()
    cluster.pass_time(1.0)
    for number in range(100):
        await process.reconcile(f"default/vm-{number}")
    assert {cluster.status(f"vm-{number}")["phase"] for number in range(100)} == {"Running"}


async def test_a_silent_scheduler_is_told_after_five_seconds_in_a_burst() -> None:
    """Not only when the burst is over."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(100):
        cluster.apply_vm(f"vm-{number}", cpu="0.001", memory="0.001")
    process = Process(cluster)
    process.deliver()
    await process.step()
    process.deliver()
    for number in range(100):
        await process.reconcile(f"default/vm-{number}")
    process.deliver()
    cluster.pass_time(5.0)
    for number in range(100):
        await process.reconcile(f"default/vm-{number}")
    reasons = {cluster.status(f"vm-{number}")["conditions"][0]["reason"] for number in range(100)}
    assert reasons == {"NotScheduled"}
