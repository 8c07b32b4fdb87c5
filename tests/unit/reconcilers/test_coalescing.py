"""During a burst of migrations, progress is published with their end; of a few, phase by phase."""

from __future__ import annotations

from controller.domain.resources import MIGRATIONS
from controller.kube.times import micro_timestamp
from controller.reconcilers.burst import PATIENCE, UNHURRIED
from controller.reconcilers.migration.slots import Limits
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process, wave

BURST = 40
NO_LIMITS = Limits(cluster=0, outbound=0)


async def moving(count: int) -> tuple[Cluster, Process]:
    """Let so many VMs run, ask for a migration of each, and let all their targets be made."""
    cluster, process = await wave(NO_LIMITS, 2, count)
    for _ in range(6):
        await look(process)
        cluster.finish_deletions()
    return cluster, process


async def look(process: Process) -> None:
    """Let the controller see everything, and act."""
    process.deliver()
    await process.step()


def phases(cluster: Cluster) -> set[str]:
    """Return the phases that the migrations tell of."""
    return {
        document["status"]["phase"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    }


async def test_of_a_few_every_phase_is_told_when_it_is_reached() -> None:
    """As somebody who watches expects."""
    cluster, process = await moving(UNHURRIED)
    cluster.bind_pods()
    await look(process)
    assert phases(cluster) == {"Starting"}


async def test_of_many_a_phase_is_told_later_with_the_time_at_which_it_was_reached() -> None:
    """Nothing of a migration's history is lost."""
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


async def test_what_goes_no_further_is_told_all_the_same() -> None:
    """Once the delay of the burst is over."""
    cluster, process = await moving(BURST)
    cluster.bind_pods()
    await look(process)
    cluster.pass_time(PATIENCE)
    await look(process)
    assert phases(cluster) == {"Starting"}


async def test_a_target_that_finds_no_node_is_told_of_at_once() -> None:
    """During a burst, with the scheduler's reason, of the VM as well."""
    cluster, process = await moving(BURST)
    cluster.unfit.add("node-1")
    cluster.run_pods()
    await look(process)
    await look(process)
    assert {cluster.migration(f"m-{number}")["message"] for number in range(BURST)} == {"no node"}
    assert cluster.status("vm-0")["conditions"][0]["reason"] == "Unschedulable"


async def test_a_crash_while_progress_waits_loses_no_more_than_its_times() -> None:
    """The next process sees what there is."""
    cluster, process = await moving(BURST)
    cluster.bind_pods()
    await look(process)
    cluster.run_pods()
    await Process(cluster, limits=NO_LIMITS).settle()
    assert phases(cluster) == {"Succeeded"}
    assert cluster.violations == []


async def test_targets_that_find_no_node_hold_up_nothing_that_is_told_of_others() -> None:
    """They are on their way no more, however long they wait."""
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
