"""During a burst one status write publishes all phases of a VM's start; few VMs are published phase by phase."""

from __future__ import annotations

import pytest

from controller.kube.resources import PODS
from controller.reconcilers.burst import ALLOWANCE, PATIENCE, UNHURRIED, USUAL_PACE, BurstGate
from tests.model.cluster import Cluster
from tests.unit.clock import Clock
from tests.unit.reconcilers.harness import Process

BURST = 100


def cluster_of(count: int) -> Cluster:
    """Return a cluster with a node and so many new VMs."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(count):
        cluster.apply_vm(f"vm-{number}", cpu="0.001")
    return cluster


async def act(process: Process, *, rounds: int = 3) -> None:
    """Let the controller work, and its own writes come back; pods do not change."""
    for _ in range(rounds):
        process.deliver()
        await process.step()


def phases(cluster: Cluster, name: str = "vm-0") -> list[str]:
    """Return the phases in a VM's history."""
    conditions = cluster.status(name)["conditions"]
    return [item["type"].removeprefix("Phase") for item in conditions if item["type"].startswith("Phase")]


def status_writes(cluster: Cluster) -> int:
    """Count the writes of VM statuses."""
    return cluster.writes.count("patch virtualmachines")


async def test_few_vms_are_published_phase_by_phase() -> None:
    """Scheduling is published as soon as the pod exists."""
    cluster = cluster_of(UNHURRIED)
    await act(Process(cluster))

    assert {cluster.status(f"vm-{n}")["phase"] for n in range(UNHURRIED)} == {"Scheduling"}


async def test_during_a_burst_a_vm_costs_one_status_write_with_all_phases() -> None:
    """The first few VMs cost more."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await act(process)
    cluster.pass_time(1)
    cluster.run_pods()
    await act(process)

    assert {cluster.status(f"vm-{n}")["phase"] for n in range(BURST)} == {"Running"}
    assert status_writes(cluster) <= BURST + UNHURRIED
    assert all(phases(cluster, f"vm-{n}") == ["Pending", "Scheduling", "Scheduled", "Running"] for n in range(BURST))


async def test_a_pending_status_is_published_after_the_delay_of_the_burst() -> None:
    """Although the VM does not run yet."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await act(process)
    time = ALLOWANCE * USUAL_PACE * (BURST - UNHURRIED)
    cluster.pass_time(time - 0.1)
    await act(process)
    early = status_writes(cluster)
    cluster.pass_time(0.2)
    await act(process)

    assert early <= UNHURRIED
    assert {cluster.status(f"vm-{n}")["phase"] for n in range(BURST)} == {"Scheduling"}


async def test_an_unschedulable_pod_is_published_at_once() -> None:
    """With the scheduler's reason, during a burst."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await act(process)
    cluster.unfit.add("node-1")
    cluster.run_pods()
    await act(process)

    assert {cluster.status(f"vm-{n}")["phase"] for n in range(BURST)} == {"Scheduling"}
    assert cluster.status("vm-99")["conditions"][0]["reason"] == "Unschedulable"


async def test_the_name_of_a_pod_with_a_pending_status_is_not_used_again() -> None:
    """The pod is deleted before its status is published."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await act(process)
    late = f"vm-{BURST - 1}"
    assert cluster.status(late).get("podName") is None
    [pod] = [item["metadata"] for item in cluster.pods() if item["metadata"]["labels"]["vm.kubevirt.io/name"] == late]
    cluster.remove(PODS, f"default/{pod['name']}")
    cluster.pass_time(3600)  # beyond what a create may take
    await process.settle()

    assert cluster.status(late)["phase"] == "Running"
    assert cluster.status(late)["incarnation"] == 1
    assert pod["name"] not in {item["metadata"]["name"] for item in cluster.pods()}
    assert cluster.violations == []


@pytest.mark.parametrize("moment", range(4))
async def test_all_vms_run_after_a_crash_during_a_burst(moment: int) -> None:
    """The next process derives the pending statuses again."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await act(process, rounds=moment)
    if moment == 3:
        cluster.run_pods()
    again = Process(cluster)
    await again.settle()

    assert {cluster.status(f"vm-{n}")["phase"] for n in range(BURST)} == {"Running"}
    assert len(cluster.live()) == BURST
    assert cluster.violations == []


async def test_the_burst_counts_only_vms_that_are_starting() -> None:
    """Running VMs delay nothing."""
    cluster = cluster_of(BURST)
    process = Process(cluster)
    await process.settle()
    cluster.pass_time(3600)
    cluster.apply_vm("late", cpu="0.001")
    await act(process)

    assert cluster.status("late")["phase"] == "Scheduling"


def gate_of(count: int, clock: Clock) -> BurstGate:
    """Return a gate whose burst is so many VMs larger than `UNHURRIED`."""
    gate = BurstGate(clock)
    for number in range(count + UNHURRIED):
        gate.wait(f"vm-{number}")
    return gate


def test_a_status_stays_pending_for_twice_the_drain_time_of_the_burst() -> None:
    """Twenty VMs arrive, eight a second: the last of a hundred behind them has twice 12.5 s."""
    clock = Clock()
    gate = BurstGate(clock)
    for number in range(20):
        gate.wait(f"first-{number}")
    for number in range(100 + UNHURRIED):
        gate.wait(f"vm-{number}")
    for number in range(20):
        clock.now += 0.125
        gate.arrived(f"first-{number}")
    assert gate.wait("new") == pytest.approx(ALLOWANCE * 101 * 0.125)


def test_a_status_waits_no_longer_than_the_patience() -> None:
    """For a burst of any size."""
    gate = BurstGate(Clock())
    for number in range(10_000):
        gate.wait(f"vm-{number}")
    assert gate.wait("vm-9999") == PATIENCE


def test_a_burst_that_shrinks_shortens_no_delay() -> None:
    """A VM keeps the delay of the burst at its largest."""
    gate = gate_of(100, Clock())
    last = f"vm-{99 + UNHURRIED}"
    before = gate.wait(last)
    for number in range(90):
        gate.arrived(f"vm-{number}")
    assert gate.wait(last) == before


def test_the_last_vms_of_a_burst_are_published_at_once() -> None:
    """Fewer than `UNHURRIED` are left."""
    gate = gate_of(100, Clock())
    for number in range(100):
        gate.arrived(f"vm-{number}")
    assert gate.wait(f"vm-{99 + UNHURRIED}") == 0.0


def test_an_arrival_extends_the_delay_of_a_pending_status() -> None:
    """Ten seconds after it came; in the last tenth 32 VMs arrived, and a hundred are left."""
    clock = Clock()
    gate = gate_of(132, clock)
    clock.now += 9.9
    for number in range(32):
        clock.now += 0.1 / 32
        gate.arrived(f"vm-{number}")

    assert gate.wait("vm-99") == pytest.approx(ALLOWANCE * 100 * 0.1 / 32)


def test_a_pending_status_is_due_after_twice_the_drain_time_without_an_arrival() -> None:
    """Counted from the last arrival."""
    clock = Clock()
    gate = gate_of(132, clock)
    for number in range(32):
        clock.now += 0.01
        gate.arrived(f"vm-{number}")
    clock.now += ALLOWANCE * 132 * USUAL_PACE

    assert gate.wait("vm-99") <= 0


def test_arrivals_do_not_extend_a_delay_beyond_the_patience() -> None:
    """However many VMs arrive."""
    clock = Clock()
    gate = gate_of(100, clock)
    for number in range(400):
        clock.now += 1.01 * PATIENCE / 400
        gate.wait(f"new-{number}")
        gate.arrived(f"new-{number}")

    assert gate.wait("vm-99") <= 0
