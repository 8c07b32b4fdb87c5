"""Changes while a migration's questions are asked: a deleted VM, a cancelled migration."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.domain.migration.limits import Limits
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process

ONE = Limits(1, 1)


@pytest.fixture
def cluster() -> Cluster:
    """Two VMs on node-1; each fits on node-2."""
    found = Cluster()
    found.add_node("node-1")
    found.apply_vm("vm-1", cpu="0.30")
    found.apply_vm("vm-2", cpu="0.60")
    return found


async def ready(cluster: Cluster) -> Process:
    """Return a process whose VMs run on node-1."""
    process = Process(cluster, limits=ONE)
    await process.settle()
    cluster.pass_time(3600)
    return process


def once(cluster: Cluster, process: Process, request: str, happens: Callable[[], object]) -> None:
    """Let something happen, and the caches show it, while the first request of a kind is in flight."""

    async def turn(sent: str) -> None:
        if sent == request and pending:
            pending.pop()()
            process.deliver()

    pending = [happens]
    cluster.turn = turn


def delete_vm(cluster: Cluster) -> None:
    """Delete vm-1 and its migration."""
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.remove(MIGRATIONS, "default/m-1")


async def assert_moves(cluster: Cluster, process: Process) -> None:
    """Let vm-2 move, which needs the only slot and more than half of node-2."""
    cluster.migrate("m-2", vm="vm-2")
    await process.settle()
    assert cluster.migration("m-2")["phase"] == "Succeeded", cluster.migration("m-2")


async def test_a_vm_deleted_while_no_node_has_capacity_does_not_wait_for_a_slot(cluster: Cluster) -> None:
    """Otherwise a slot would be granted to it."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.crowd("node-2")
    cluster.migrate()
    once(cluster, process, "list pods", lambda: delete_vm(cluster))
    process.deliver()
    await process.step()
    cluster.remove(PODS, "other/stranger")
    await assert_moves(cluster, process)


async def test_a_vm_deleted_during_preflight_has_no_reservation(cluster: Cluster) -> None:
    """It would never be released."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    once(cluster, process, "list pods", lambda: delete_vm(cluster))
    process.deliver()
    await process.step()
    cluster.remove(NODES, "/node-2")
    cluster.add_node("node-2")
    assert process.migrations._headroom.used("node-2").cpu == 0
    await assert_moves(cluster, process)


@pytest.mark.parametrize("request_", ["list pods", "dry-run pods"])
async def test_a_migration_cancelled_during_its_questions_leaves_the_vm_untouched(
    cluster: Cluster, request_: str
) -> None:
    """The cancel came before the claim."""
    process = await ready(cluster)
    before = cluster.status()["podUID"]
    cluster.add_node("node-2")
    cluster.migrate()

    def cancel() -> None:
        key = (MIGRATIONS.plural, "default/m-1")
        document = cluster.objects[key]
        cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})

    once(cluster, process, request_, cancel)
    await process.settle()
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "Cancelled")
    assert cluster.status()["podUID"] == before


@pytest.mark.parametrize("request_", ["list pods", "dry-run pods"])
async def test_a_migration_deleted_during_its_questions_leaves_the_vm_untouched(
    cluster: Cluster, request_: str
) -> None:
    """Deleting a migration cancels it."""
    process = await ready(cluster)
    before = cluster.status()["podUID"]
    cluster.add_node("node-2")
    cluster.migrate()
    once(cluster, process, request_, lambda: cluster.remove(MIGRATIONS, "default/m-1"))
    await process.settle()
    assert cluster.status()["podUID"] == before
    await assert_moves(cluster, process)


async def test_no_state_remains_of_a_vm_that_is_deleted_before_its_claim(cluster: Cluster) -> None:
    """Its reconcile, which drops the state, may be over when the claim is written."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    pod = cluster.status()["podName"]
    pending = [pod]

    async def turn(sent: str) -> None:
        if sent == "dry-run pods" and pending:
            cluster.remove(PODS, f"default/{pending.pop()}")
            cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
            process.deliver()
            await process.reconcile()

    cluster.turn = turn
    process.deliver()
    await process.step()
    assert pending == []
    assert "default/vm-1" not in process.reconciler._memory


async def test_the_time_spent_waiting_for_a_slot_does_not_count_for_the_timeout(cluster: Cluster) -> None:
    """The timeout counts from the first refusal."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.migrate("m-2", vm="vm-2", unschedulableTimeoutSeconds=3600)
    process.deliver()
    await process.step()
    cluster.migrate("m-1", vm="vm-1", unschedulableTimeoutSeconds=60)
    process.deliver()
    await process.step()
    cluster.pass_time(600)
    unavailable = errors.ServerError(503, "ServiceUnavailable", "the webhook is down")
    cluster.faults = [Fault("dry-run", "pods", unavailable, commit=False)] * 3
    await process.settle(rounds=300)
    assert cluster.migration("m-1")["phase"] == "Succeeded", cluster.migration("m-1")


async def test_a_refused_migration_fails_at_its_timeout_after_a_restart(cluster: Cluster) -> None:
    """Each process counts from its own first reconcile."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    unavailable = errors.ServerError(503, "ServiceUnavailable", "the webhook is down")
    cluster.intercept = lambda method, plural: (
        Fault("dry-run", "pods", unavailable, commit=False) if (method, plural) == ("dry-run", "pods") else None
    )
    cluster.migrate(unschedulableTimeoutSeconds=60)
    process.deliver()
    await process.step()
    cluster.pass_time(30)
    process = Process(cluster, limits=ONE)
    began = cluster.now
    process.moving["default/vm-1"] = None
    await process.settle(rounds=400)
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "TargetRefused")
    assert 60 <= (cluster.now - began).total_seconds() < 90
    process.deliver()
    assert process.migrations._refusal_timers._since == {}


async def test_an_orphaned_claim_ends_although_no_target_can_be_created(cluster: Cluster) -> None:
    """Its slot is free; the VM's pod is created when the quota admits it."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    quota = errors.ForbiddenError(403, "Forbidden", "exceeded quota: q")
    cluster.intercept = lambda method, plural: (
        Fault("create", "pods", quota, commit=False) if (method, plural) == ("create", "pods") else None
    )
    for _ in range(10):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
        cluster.pass_time(1)
    assert "migration" in cluster.status()
    cluster.remove(MIGRATIONS, "default/m-1")
    for _ in range(60):
        process.deliver()
        await process.step()
        cluster.pass_time(1)
    assert "migration" not in cluster.status()
    cluster.intercept = None
    await process.settle(rounds=200)
    assert cluster.status()["phase"] == "Running"
    assert process.migrations._questions._unbound == {}
