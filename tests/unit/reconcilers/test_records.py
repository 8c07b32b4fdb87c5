"""Records of evictions when the API server does not accept them at once; found by tests/faults."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.workers import Result
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import running

LOST = errors.TransportError("the connection broke")
BUSY = errors.TooManyRequestsError(429, "TooManyRequests", "slow down")
FORBIDDEN = errors.ForbiddenError(403, "Forbidden", "you may not")


def recorded(cluster: Cluster) -> list[tuple[Any, Any]]:
    """Return the reason and the phase of each record."""
    return [
        (document["spec"]["reason"], document["status"]["phase"])
        for (plural, _), document in cluster.objects.items()
        if plural == MIGRATIONS.plural
    ]


@pytest.mark.parametrize("error", [LOST, BUSY])
async def test_a_lost_node_is_recorded_although_the_first_create_of_the_record_fails(
    cluster: Cluster, error: errors.KubeError
) -> None:
    """The VM does not wait for the record."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, error, commit=False))
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert recorded(cluster) == [("NodeLost", "Succeeded")]
    assert cluster.status()["nodeName"] == "node-2"


async def test_an_eviction_is_recorded_although_the_pod_was_deleted_and_the_first_create_failed(
    cluster: Cluster,
) -> None:
    """The pod is remembered until it is recorded."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, LOST, commit=False))
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    await process.settle()
    assert recorded(cluster) == [("Evicted", "Succeeded")]
    assert cluster.status()["incarnation"] == 1


async def test_a_record_is_retried_although_the_vm_runs(cluster: Cluster) -> None:
    """No event of the VM will come."""
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


async def test_a_record_whose_reply_was_lost_is_not_created_twice(cluster: Cluster) -> None:
    """Its name derives from the pod's UID."""
    process = await running(cluster)
    cluster.faults.append(Fault("create", MIGRATIONS.plural, LOST))
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert recorded(cluster) == [("NodeLost", "Succeeded")]


async def test_a_forbidden_record_is_not_retried(cluster: Cluster) -> None:
    """The VM moves without a record, and everything settles."""
    process = await running(cluster)
    cluster.intercept = lambda method, plural: (
        Fault(method, plural, FORBIDDEN, commit=False) if (method, plural) == ("create", MIGRATIONS.plural) else None
    )
    cluster.remove(NODES, "/node-1")
    await process.settle()
    assert recorded(cluster) == []
    assert (cluster.status()["nodeName"], cluster.status()["phase"]) == ("node-2", "Running")
    assert not process.pending


@pytest.mark.parametrize("incarnations", [0, 1])
async def test_the_record_of_a_replaced_vm_fails(cluster: Cluster, incarnations: int) -> None:
    """The namesake was not evicted, whatever its incarnation."""
    process = await running(cluster)
    for _ in range(incarnations):
        cluster.remove(PODS, f"default/{cluster.status()['podName']}")
        await process.settle()
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm()
    await process.settle()
    statuses = [d["status"] for plural, d, _ in cluster.log if plural == MIGRATIONS.plural]
    assert (statuses[-1]["phase"], statuses[-1]["failureReason"]) == ("Failed", "VMDeleted")
    assert recorded(cluster) == []
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
async def test_a_records_reason_follows_from_the_pods_disruption_condition(
    cluster: Cluster, written: str, reason: str
) -> None:
    """An unknown reason counts as an eviction."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"], written)
    await process.settle()
    assert recorded(cluster) == [(reason, "Succeeded")]


def outcomes(cluster: Cluster) -> list[Any]:
    """Return reason, phase and failure of each migration; one that a user created has no reason."""
    return [
        (document["spec"].get("reason"), document["status"]["phase"], document["status"].get("failureReason"))
        for (plural, _), document in cluster.objects.items()
        if plural == MIGRATIONS.plural
    ]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("late", [False, True])
async def test_a_pod_that_a_migration_deletes_gets_no_record(cluster: Cluster, at: int, *, late: bool) -> None:
    """Although it is evicted as well, and deleted at once or later."""
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
    assert outcomes(cluster) == [(None, "Succeeded", None)]
    assert cluster.status()["nodeName"] == "node-2"


async def test_a_pod_that_outlives_its_migration_gets_no_record(cluster: Cluster) -> None:
    """The migration timed out while its source was terminating."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    cluster.migrate(completionTimeoutSeconds=10)
    for _ in range(20):
        process.deliver()
        await process.step()
        cluster.pass_time(1)
    assert [phase for _, phase, _ in outcomes(cluster)] == ["Failed"]
    assert "migration" not in cluster.status()
    cluster.evict(pod, "DeletionByTaintManager")
    await process.settle()
    assert [phase for _, phase, _ in outcomes(cluster)] == ["Failed"]
    assert cluster.status()["phase"] == "Running"


@pytest.mark.parametrize("steps", [0, 2])
async def test_a_vm_whose_pod_is_being_evicted_is_not_migrated(cluster: Cluster, steps: int) -> None:
    """The record follows the move."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    for _ in range(steps):
        process.deliver()
        await process.step()
    cluster.migrate()
    await process.settle()
    assert sorted(outcomes(cluster), key=str) == [("Evicted", "Succeeded", None), (None, "Failed", "VMNotRunning")]
    assert cluster.status()["incarnation"] == 1


async def test_a_withdrawn_eviction_ends_its_record(cluster: Cluster) -> None:
    """The scheduler sets the condition before it deletes the pod, and withdraws it if that fails."""
    process = await running(cluster)
    key = f"default/{cluster.status()['podName']}"
    before = cluster.objects[PODS.plural, key]["status"]
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    cluster.set_status(PODS, key, {**before, "conditions": [*before["conditions"], disrupted]})
    for _ in range(3):
        process.deliver()
        await process.step()
    assert recorded(cluster) == [("Preempted", "Terminating")]
    cluster.set_status(PODS, key, {**before, "conditions": [*before["conditions"], {**disrupted, "status": "False"}]})
    await process.settle()
    assert recorded(cluster) == [("Preempted", "Failed")]
    assert (cluster.status()["phase"], cluster.status()["incarnation"]) == ("Running", 0)


async def test_a_node_that_returns_in_time_ends_the_record_of_its_loss(cluster: Cluster) -> None:
    """The pod stays."""
    process = await running(cluster)
    cluster.remove(NODES, "/node-1")
    process.deliver()
    cluster.faults.append(Fault("delete", PODS.plural, LOST, commit=False))
    await process.step()
    assert [reason for reason, _ in recorded(cluster)] == ["NodeLost"]
    cluster.add_node("node-1")
    await process.settle(patience=5)
    assert recorded(cluster) == [("NodeLost", "Failed")]
    assert (cluster.status()["nodeName"], cluster.status()["incarnation"]) == ("node-1", 0)


async def test_a_pod_of_a_namesake_is_not_the_successor(cluster: Cluster) -> None:
    """It failed in the evicted incarnation."""
    process = await running(cluster)
    namesakes = cluster.status()["podName"]
    cluster.set_status(PODS, f"default/{namesakes}", {"phase": "Failed"})
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm()
    process.deliver()
    await process.reconcile()
    [evicted] = cluster.live()
    cluster.evict(evicted["metadata"]["name"])
    cluster.finish_deletions()
    await process.settle()
    assert any(pod["metadata"]["name"] == namesakes for pod in cluster.pods())
    assert recorded(cluster) == [("Evicted", "Succeeded")]
