"""Live migrations on the model of the API server: two pods and one VM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process, running

VM: Final = "default/vm-1"
LOST: Final = errors.TransportError("the reply was lost")


async def test_a_live_migration_moves_its_vm_without_a_phase_but_running(cluster: Cluster) -> None:
    """The target is the next number, on the other node; nothing of the move is left."""
    process = await running(cluster)
    source, before = cluster.status()["podName"], len(cluster.log)
    cluster.migrate(strategy="Live")
    await process.settle()
    vm, move = cluster.status(), cluster.migration()
    assert (vm["phase"], vm["nodeName"], vm["incarnation"]) == ("Running", "node-2", 1)
    assert "migration" not in vm
    assert (move["phase"], move["sourceNode"], move["targetNode"]) == ("Succeeded", "node-1", "node-2")
    assert (move["sourcePod"], move["targetPod"]) == (source, vm["podName"])
    assert cluster.violations == []
    phases = {
        document["status"]["phase"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural
    }
    assert phases == {"Running"}
    assert len(cluster.live()) == 1


async def copying(cluster: Cluster) -> tuple[Process, str]:
    """Return a process in which m-1 copies, and the name of the target pod."""
    process = await running(cluster)
    cluster.migrate(strategy="Live")
    for _ in range(20):
        process.deliver()
        await process.step()
        cluster.run_pods()
        if cluster.migration().get("phase") == "Running":
            return process, cluster.migration()["targetPod"]
        cluster.pass_time(1)
    raise AssertionError(cluster.migration())


def fail(cluster: Cluster, pod: str) -> None:
    """End the target pod."""
    found = cluster.objects[PODS.plural, f"default/{pod}"]
    cluster.set_status(PODS, f"default/{pod}", {**found["status"], "phase": "Failed"})


def terminate(cluster: Cluster, pod: str) -> None:
    """Begin the target pod's deletion."""
    cluster.evict(pod)


def vanish(cluster: Cluster, pod: str) -> None:
    """Delete the target pod at once."""
    cluster.remove(PODS, f"default/{pod}")


@pytest.mark.parametrize("change", [fail, terminate, vanish])
async def test_a_target_whose_end_no_cache_shows_does_not_become_the_vm(
    cluster: Cluster, change: Callable[[Cluster, str], None]
) -> None:
    """The look before the hand-over finds it; the VM goes on in its source pod."""
    process, target = await copying(cluster)
    process.deliver()
    change(cluster, target)
    cluster.pass_time(60)
    for _ in range(3):
        process.deliver(withhold=PODS.plural)
        await process.step()
    assert (cluster.status()["incarnation"], cluster.migration()["phase"]) == (0, "Running")
    await process.settle()
    assert (cluster.status()["nodeName"], cluster.migration()["phase"]) == ("node-1", "Failed")
    assert cluster.violations == []


async def test_a_late_hand_over_of_a_dead_leader_conflicts_by_the_vms_version_with_the_aborts_first_write(
    cluster: Cluster,
) -> None:
    """That write is the mark on the claim; the migration is not Failed yet."""
    process, _ = await copying(cluster)
    cluster.faults.append(Fault("patch", "virtualmachines", LOST, late=50))
    cluster.pass_time(60)
    process.deliver()
    await process.work("migrations", VM)
    [(_, hand_over)], cluster.late = cluster.late, []
    cluster.failures["patch virtualmachinemigrations"] = LOST
    cancelled = cluster.objects[MIGRATIONS.plural, "default/m-1"]
    cluster.store(MIGRATIONS.plural, {**cancelled, "spec": {**cancelled["spec"], "cancel": True}})
    leader = Process(cluster)
    await leader.work("migrations", VM)
    assert (cluster.status()["migration"]["aborting"].partition(":")[0], cluster.migration()["phase"]) == (
        "Cancelled",
        "Running",
    )
    with pytest.raises(errors.ConflictError):
        hand_over()
    cluster.failures.clear()
    await leader.settle()
    assert (cluster.status()["incarnation"], cluster.migration()["failureReason"]) == (0, "Cancelled")
    assert cluster.violations == []


async def test_the_claim_of_a_move_that_is_undone_stays_while_an_old_list_hides_its_migration(cluster: Cluster) -> None:
    """Otherwise the migration would not learn why it failed."""
    process, target = await copying(cluster)
    process.deliver()
    process.caches.migrations.replace([], "1")
    vanish(cluster, target)
    for _ in range(3):
        process.deliver(withhold=MIGRATIONS.plural)
        await process.step()
    assert cluster.status()["migration"]["aborting"].startswith("TargetLost")
    await Process(cluster).settle()
    assert cluster.migration()["failureReason"] == "TargetLost"
    assert "migration" not in cluster.status()


async def test_a_vm_that_the_target_preempts_restarts_with_a_record_that_says_so(cluster: Cluster) -> None:
    """The scheduler evicts it while the target waits for its room; the move goes on."""
    process = await running(cluster)
    cluster.cordon("node-1")
    cluster.apply_vm("vm-2")
    await process.settle()
    victim = cluster.status("vm-2")["podName"]
    cluster.cordon("node-1", unschedulable=False)
    cluster.pass_time(3600)
    cluster.unfit = {"node-2"}
    cluster.migrate(strategy="Live")
    while not any(pod["metadata"]["annotations"].get(names.INCARNATION) == "1" for pod in cluster.pods()):
        process.deliver()
        await process.step()
    cluster.evict(victim, "PreemptionByScheduler")
    process.deliver()
    await process.step()
    cluster.finish_deletions()
    cluster.unfit = set()
    await process.settle()
    records = [found["spec"] for found in cluster.of(MIGRATIONS) if "recordOf" in found["spec"]]
    assert [(record["vmName"], record["reason"]) for record in records] == [("vm-2", "Preempted")]
    assert (cluster.migration()["phase"], cluster.status()["nodeName"]) == ("Succeeded", "node-2")
    assert (cluster.status("vm-2")["phase"], cluster.violations) == ("Running", [])


async def test_an_old_list_of_vms_does_not_fail_a_move_that_has_handed_over(cluster: Cluster) -> None:
    """It shows neither the claim nor the hand-over; a live read shows that the claim is gone because it was made."""
    process = await running(cluster)
    old = process.caches.vms.get("default/vm-1")
    assert old is not None
    cluster.migrate(strategy="Live")
    for _ in range(60):
        process.deliver()
        await process.step()
        cluster.run_pods()
        cluster.finish_deletions()
        cluster.pass_time(1)
        vm = cluster.status()
        if "lastHandOver" in vm and "migration" not in vm:
            break
    assert cluster.migration()["phase"] == "Running"
    process.deliver(withhold=VIRTUAL_MACHINES.plural)
    process.caches.vms.replace([old], old.metadata.resource_version)
    for _ in range(3):
        await process.work("migrations", "default/vm-1")
    assert cluster.migration()["phase"] == "Running"
    process.deliver()
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


async def _copies(cluster: Cluster, process: Process) -> None:
    for _ in range(30):
        process.deliver()
        await process.step()
        cluster.run_pods()
        if cluster.migration()["phase"] == "Running":
            return
    raise AssertionError("it does not copy")


async def test_a_migration_is_told_to_wait_while_a_deleted_one_is_cleaned_up(cluster: Cluster) -> None:
    """The second pod may take hours to end."""
    process = await running(cluster)
    item = cluster.migrate(strategy="Live")
    await _copies(cluster, process)
    cluster.discard("virtualmachinemigrations", item)
    cluster.migrate("m-2", strategy="Live")
    for _ in range(10):
        process.deliver()
        await process.step()
    assert "is still claimed by migration m-1" in cluster.migration("m-2")["message"]


async def test_a_namesake_does_not_count_the_target_of_its_predecessor(cluster: Cluster) -> None:
    """Its own target has the same number, and was not seen yet."""
    process = await running(cluster)
    cluster.migrate(strategy="Live")
    await process.settle()
    cluster.discard(VIRTUAL_MACHINES.plural, cluster.vm())
    cluster.apply_vm()
    await process.settle()
    cluster.pass_time(3600)
    cluster.migrate("m-2", strategy="Live")
    await process.settle()
    assert cluster.migration("m-2")["phase"] == "Succeeded"
