"""During a burst of migrations, progress is published with their end; of a few, phase by phase."""

from __future__ import annotations

from controller.domain.migration.limits import Limits
from controller.domain.resources import MIGRATIONS
from controller.kube.times import micro_timestamp
from controller.reconcilers.burst import PATIENCE, UNHURRIED
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process, wave

BURST = 40
NO_LIMITS = Limits(cluster=0, outbound=0)


async def moving(count: int) -> tuple[Cluster, Process]:
    """Let so many VMs run, create a migration of each, and wait until their targets are created."""
    cluster, process = await wave(NO_LIMITS, 2, count)
    for _ in range(6):
        await look(process)
        cluster.finish_deletions()
    return cluster, process


async def look(process: Process) -> None:
    """Let the caches catch up, and the controller act."""
    process.deliver()
    await process.step()


def phases(cluster: Cluster) -> set[str]:
    """Return the published phases of the migrations."""
    return {
        document["status"]["phase"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    }


async def test_few_migrations_are_published_phase_by_phase() -> None:
    """As soon as a phase is reached."""
    cluster, process = await moving(UNHURRIED)
    cluster.bind_pods()
    await look(process)
    assert phases(cluster) == {"Starting"}


async def test_during_a_burst_a_phase_is_published_later_with_the_time_at_which_it_was_reached() -> None:
    """The history is complete."""
    cluster, process = await moving(BURST)
    cluster.bind_pods()
    bound_at = cluster.now
    await look(process)
    assert phases(cluster) == {"Terminating"}
    cluster.pass_time(0.5)
    cluster.run_pods()
    await process.settle()
    assert phases(cluster) == {"Succeeded"}
    times = {
        step["phase"]: step["phaseTransitionTimestamp"]
        for step in cluster.migration("m-0")["phaseTransitionTimestamps"]
    }
    assert (times["Starting"], times["Succeeded"]) == (micro_timestamp(bound_at), micro_timestamp(cluster.now))


async def test_pending_progress_is_published_after_the_delay_of_the_burst() -> None:
    """Although nothing newer comes."""
    cluster, process = await moving(BURST)
    cluster.bind_pods()
    await look(process)
    cluster.pass_time(PATIENCE)
    await look(process)
    assert phases(cluster) == {"Starting"}


async def test_an_unschedulable_target_is_published_at_once() -> None:
    """During a burst, with the scheduler's reason; the VM's status, too."""
    cluster, process = await moving(BURST)
    cluster.unfit.add("node-1")
    cluster.run_pods()
    await look(process)
    await look(process)
    assert {cluster.migration(f"m-{number}")["message"] for number in range(BURST)} == {"no node"}
    assert cluster.status("vm-0")["conditions"][0]["reason"] == "Unschedulable"


async def test_a_crash_with_pending_progress_loses_only_its_times() -> None:
    """The next process derives the phases again."""
    cluster, process = await moving(BURST)
    cluster.bind_pods()
    await look(process)
    cluster.run_pods()
    await Process(cluster, limits=NO_LIMITS).settle()
    assert phases(cluster) == {"Succeeded"}
    assert cluster.violations == []


async def test_unschedulable_targets_do_not_count_as_starting() -> None:
    """Other VMs and migrations are published at once, however long those targets wait."""
    cluster, process = await moving(BURST)
    cluster.unfit.add("node-1")
    cluster.run_pods()
    await look(process)
    cluster.apply_vm("late", cpu="0.001")
    for _ in range(4):
        await look(process)
    assert cluster.status("late")["phase"] == "Scheduling"
    cluster.run_pods()
    await look(process)
    cluster.migrate("m-late", vm="late")
    for _ in range(4):
        await look(process)
        cluster.finish_deletions()
    assert cluster.migration("m-late")["phase"] == "Scheduling"
