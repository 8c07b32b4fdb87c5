"""A pod's deletion is requested once, and again only when the earlier request can no longer take effect."""

from __future__ import annotations

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.workers import Result
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.reconcilers.vm.deletions import DEADLINE
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import running_alone

LOST = errors.TransportError("the reply was lost")
UNSENT = errors.TransportError("Cannot connect to host", sent=False)


def stop(cluster: Cluster) -> None:
    """Stop the VM."""
    cluster.apply_vm(running=False)


def delete_vm(cluster: Cluster) -> None:
    """Delete the VM; its pod remains."""
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")


def delete_node(cluster: Cluster) -> None:
    """Delete the node of the VM's pod."""
    cluster.remove(NODES, "/node-1")


def replace_vm(cluster: Cluster) -> None:
    """Delete the VM and create a namesake."""
    delete_vm(cluster)
    cluster.apply_vm()


def deletes(cluster: Cluster) -> int:
    """Count the requests to delete a pod."""
    return cluster.requests.count("delete pods")


CAUSES = [stop, delete_vm, delete_node, replace_vm]


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_deletion_is_requested_once_however_late_the_watch_is(cluster: Cluster, cause: object) -> None:
    """Until the cache shows it, and while the pod terminates."""
    process = await running_alone(cluster)
    cause(cluster)  # type: ignore[operator]
    process.deliver()
    for _ in range(5):
        await process.reconcile()
    for _ in range(5):
        process.deliver()
        await process.reconcile()
    assert deletes(cluster) == 1


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_deletion_without_an_answer_is_not_requested_again_while_it_may_take_effect(
    cluster: Cluster, cause: object
) -> None:
    """The worker's backoff is shorter."""
    process = await running_alone(cluster)
    cause(cluster)  # type: ignore[operator]
    cluster.faults.append(Fault("delete", "pods", LOST, late=10))
    process.deliver()
    assert await process.reconcile() is LOST
    for _ in range(5):
        await process.reconcile()
    assert deletes(cluster) == 1
    cluster.pass_time(10)
    await process.settle()
    assert deletes(cluster) == 1


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_deletion_whose_request_was_lost_is_requested_again_after_the_deadline(
    cluster: Cluster, cause: object
) -> None:
    """The first request took no effect."""
    process = await running_alone(cluster)
    cause(cluster)  # type: ignore[operator]
    cluster.faults.append(Fault("delete", "pods", LOST, commit=False))
    process.deliver()
    assert await process.reconcile() is LOST
    process.deliver()
    again = await process.reconcile()
    assert isinstance(again, Result)
    assert again.requeue_after is not None
    assert again.requeue_after <= DEADLINE
    assert deletes(cluster) == 1
    cluster.pass_time(DEADLINE)
    await process.reconcile()
    assert deletes(cluster) == 2


async def test_the_deletion_of_a_pod_that_has_changed_since_is_requested_again_at_once(cluster: Cluster) -> None:
    """The first request's precondition fails."""
    process = await running_alone(cluster)
    stop(cluster)
    cluster.faults.append(Fault("delete", "pods", LOST, commit=False))
    process.deliver()
    await process.reconcile()
    pod = cluster.pods()[0]
    cluster.edit(PODS, f"default/{pod['metadata']['name']}", annotations={**pod["metadata"]["annotations"], "a": "b"})
    process.deliver()
    await process.reconcile()
    assert deletes(cluster) == 2


@pytest.mark.parametrize("error", [UNSENT, errors.ServerError(500, "InternalError", "etcdserver: request timed out")])
async def test_a_request_that_was_answered_or_never_sent_is_repeated_with_the_usual_backoff(
    cluster: Cluster, error: errors.KubeError
) -> None:
    """It is not in flight."""
    process = await running_alone(cluster)
    stop(cluster)
    cluster.faults.append(Fault("delete", "pods", error, commit=False))
    process.deliver()
    assert await process.reconcile() is error
    await process.reconcile()
    assert deletes(cluster) == 2


async def test_a_claim_neither_waits_for_a_deletion_nor_repeats_it(cluster: Cluster) -> None:
    """The reply to the source's deletion is lost, and the claim is written meanwhile."""
    process = await running_alone(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    cluster.faults.append(Fault("delete", "pods", LOST))
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"
    assert deletes(cluster) == 1


async def test_a_request_that_expires_during_a_reconcile_is_sent_again_at_once(cluster: Cluster) -> None:
    """While an eviction is recorded."""
    process = await running_alone(cluster)
    delete_node(cluster)
    refused = errors.ServerError(500, "InternalError", "etcdserver: request timed out")
    cluster.faults = [
        Fault("create", MIGRATIONS.plural, refused, commit=False),
        Fault("delete", "pods", LOST, commit=False),
        Fault("create", MIGRATIONS.plural, refused, commit=False),
    ]
    process.deliver()
    assert await process.reconcile() is LOST

    async def turn(request: str) -> None:
        if request == f"create {MIGRATIONS.plural}":
            cluster.pass_time(DEADLINE)

    cluster.turn = turn
    for _ in range(2):
        assert isinstance(await process.reconcile(), Result)
    assert deletes(cluster) == 2
