"""Records of evictions when the API server will not have them at once; found by tests/faults."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.workers import Result
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process

LOST = errors.TransportError("the connection broke")
BUSY = errors.TooManyRequestsError(429, "TooManyRequests", "slow down")
FORBIDDEN = errors.ForbiddenError(403, "Forbidden", "you may not")


@pytest.fixture
def cluster() -> Cluster:
    """One VM, which will run on node-1."""
    made = Cluster()
    made.add_node("node-1")
    made.apply_vm()
    return made


async def running(cluster: Cluster) -> Process:
    """A process whose VM runs on node-1, and a free node-2."""
    process = Process(cluster)
    await process.settle()
    cluster.pass_time(3600)
    cluster.add_node("node-2")
    return process


def told(cluster: Cluster) -> list[tuple[Any, Any]]:
    """The reason and the phase of each record."""
    return [
        (document["spec"]["reason"], document["status"]["phase"])
        for (plural, _), document in cluster.objects.items()
        if plural == MIGRATIONS.plural
    ]


@pytest.mark.parametrize("error", [LOST, BUSY])
async def test_a_lost_node_is_told_although_the_first_try_fails(cluster: Cluster, error: errors.KubeError) -> None:
    """The pod is freed meanwhile: the record does not hold the VM up, and is made when its pod is gone."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, error, commit=False))
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert told(cluster) == [("NodeLost", "Succeeded")]
    assert cluster.status()["nodeName"] == "node-2"


async def test_an_eviction_is_told_although_the_pod_went_and_the_first_try_failed(cluster: Cluster) -> None:
    """The watch's last word of the pod is kept until it has been told."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, LOST, commit=False))
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    await process.settle()
    assert told(cluster) == [("Evicted", "Succeeded")]
    assert cluster.status()["incarnation"] == 1


async def test_an_eviction_is_tried_again_although_the_vm_runs_by_now(cluster: Cluster) -> None:
    """Nothing else is left to do for the VM, and no event will come."""
    process = await running(cluster)
    busy = Fault("create", MIGRATIONS.plural, BUSY, commit=False)
    cluster.intercept = lambda method, plural: busy if (method, plural) == ("create", MIGRATIONS.plural) else None
    cluster.evict(cluster.status()["podName"])
    for _ in range(8):
        process.deliver()
        result = await process.reconcile()
        assert isinstance(result, Result)
        assert result.retry
        cluster.run_pods()
        cluster.finish_deletions()
    assert cluster.status()["phase"] == "Running"


async def test_a_record_that_was_made_although_its_reply_was_lost_is_not_made_again(cluster: Cluster) -> None:
    """Its name is the pod's."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, LOST))
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert told(cluster) == [("NodeLost", "Succeeded")]


async def test_who_may_not_record_does_not_try_for_ever(cluster: Cluster) -> None:
    """The VM moves without a record, and everything comes to rest."""
    process = await running(cluster)
    cluster.intercept = lambda method, plural: (
        Fault(method, plural, FORBIDDEN, commit=False) if (method, plural) == ("create", MIGRATIONS.plural) else None
    )
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert told(cluster) == []
    assert (cluster.status()["nodeName"], cluster.status()["phase"]) == ("node-2", "Running")
    assert not process.pending


@pytest.mark.parametrize("lives", [0, 1])
async def test_the_record_of_a_vm_that_was_made_anew_under_its_name_ends(cluster: Cluster, lives: int) -> None:
    """The VM that has the name now was never evicted, whatever life it is in."""
    process = await running(cluster)
    for _ in range(lives):
        cluster.remove(PODS, f"default/{cluster.status()['podName']}")
        await process.settle()
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm()
    await process.settle()
    words = [d["status"] for plural, d, _ in cluster.log if plural == MIGRATIONS.plural]
    assert (words[-1]["phase"], words[-1]["failureReason"]) == ("Failed", "VMDeleted")
    assert told(cluster) == []
    assert cluster.status()["phase"] == "Running"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("EvictionByEvictionAPI", "Evicted"),
        ("DeletionByTaintManager", "NoExecuteTaint"),
        ("DeletionByPodGC", "NodeLost"),
        ("PreemptionByScheduler", "Preempted"),
        ("TerminationByKubelet", "TerminatedByKubelet"),
        ("WhateverComesNext", "Evicted"),
    ],
)
async def test_a_record_says_who_took_the_pod_away(cluster: Cluster, written: str, reason: str) -> None:
    """For each reason that Kubernetes writes; what it may write one day is an eviction."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"], written)
    await process.settle()
    assert told(cluster) == [(reason, "Succeeded")]


def kept(cluster: Cluster) -> list[Any]:
    """Every migration: what was asked for without a reason has none."""
    return [
        (document["spec"].get("reason"), document["status"]["phase"], document["status"].get("failureReason"))
        for (plural, _), document in cluster.objects.items()
        if plural == MIGRATIONS.plural
    ]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("late", [False, True])
async def test_a_pod_that_a_migration_takes_away_is_no_eviction_too(cluster: Cluster, at: int, *, late: bool) -> None:
    """One move has one record, and it is named after what was first; the pod may hang, and be gone before we look."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    cluster.migrate()
    for _ in range(at):
        process.deliver()
        await process.step()
    assert "migration" in cluster.status()
    cluster.evict(pod, "DeletionByTaintManager")
    if late:
        cluster.finish_deletions()
    await process.settle()
    assert kept(cluster) == [(None, "Succeeded", None)]
    assert cluster.status()["nodeName"] == "node-2"


async def test_a_pod_that_outlives_its_migration_is_no_eviction_too(cluster: Cluster) -> None:
    """The migration was given up while its source hung; what follows is still its move."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    cluster.migrate(completionTimeoutSeconds=10)
    for _ in range(20):
        process.deliver()
        await process.step()
        cluster.pass_time(1)
    assert [phase for _, phase, _ in kept(cluster)] == ["Failed"]
    assert "migration" not in cluster.status()
    cluster.evict(pod, "DeletionByTaintManager")
    await process.settle()
    assert [phase for _, phase, _ in kept(cluster)] == ["Failed"]
    assert cluster.status()["phase"] == "Running"


@pytest.mark.parametrize("steps", [0, 2])
async def test_a_vm_whose_pod_is_being_evicted_is_not_migrated_as_well(cluster: Cluster, steps: int) -> None:
    """It is on its way already, and the record says so."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    for _ in range(steps):
        process.deliver()
        await process.step()
    cluster.migrate()
    await process.settle()
    assert sorted(kept(cluster), key=str) == [("Evicted", "Succeeded", None), (None, "Failed", "VMNotRunning")]
    assert cluster.status()["incarnation"] == 1


async def test_an_eviction_that_was_taken_back_ends_its_record(cluster: Cluster) -> None:
    """Preemption and eviction tell the pod first and delete it then; Kubernetes takes the word back if that fails."""
    process = await running(cluster)
    key = f"default/{cluster.status()['podName']}"
    before = cluster.objects[PODS.plural, key]["status"]
    word = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    cluster.set_status(PODS, key, {**before, "conditions": [*before["conditions"], word]})
    for _ in range(3):
        process.deliver()
        await process.step()
    assert told(cluster) == [("Preempted", "Terminating")]
    cluster.set_status(PODS, key, {**before, "conditions": [*before["conditions"], {**word, "status": "False"}]})
    await process.settle()
    assert told(cluster) == [("Preempted", "Failed")]
    assert (cluster.status()["phase"], cluster.status()["incarnation"]) == ("Running", 0)


async def test_a_node_that_comes_back_in_time_ends_the_record_of_its_loss(cluster: Cluster) -> None:
    """The pod was told to be lost and is not: it stays, and nothing waits for its end."""
    process = await running(cluster)
    cluster.remove(NODES, "/node-1")
    process.deliver()
    cluster.faults.append(Fault("delete", PODS.plural, LOST, commit=False))
    await process.step()
    assert [reason for reason, _ in told(cluster)] == ["NodeLost"]
    cluster.add_node("node-1")
    await process.settle(patience=5)
    assert told(cluster) == [("NodeLost", "Failed")]
    assert (cluster.status()["nodeName"], cluster.status()["incarnation"]) == ("node-1", 0)


async def test_what_a_namesake_left_behind_is_not_taken_for_the_successor(cluster: Cluster) -> None:
    """A pod that failed under the VM of this name before is of the same life as the evicted one, and no end of it."""
    process = await running(cluster)
    left = cluster.status()["podName"]
    cluster.set_status(PODS, f"default/{left}", {"phase": "Failed"})
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm()
    process.deliver()
    await process.reconcile()
    [evicted] = cluster.live()
    cluster.evict(evicted["metadata"]["name"])
    cluster.finish_deletions()
    await process.settle()
    assert any(pod["metadata"]["name"] == left for pod in cluster.pods())
    assert told(cluster) == [("Evicted", "Succeeded")]
