"""What comes about while a migration's questions are asked: a VM that goes, a migration that is cancelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.reconcilers.migration.slots import Limits
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process

ONE = Limits(1, 1)


@pytest.fixture
def cluster() -> Cluster:
    """Two VMs that fill more than half of node-1 each in turn: one after the other has room on node-2."""
    made = Cluster()
    made.add_node("node-1")
    made.apply_vm("vm-1", cpu="0.30")
    made.apply_vm("vm-2", cpu="0.60")
    return made


async def ready(cluster: Cluster) -> Process:
    """A process whose VMs run on node-1."""
    process = Process(cluster, limits=ONE)
    await process.settle()
    cluster.pass_time(3600)
    return process


def once(cluster: Cluster, process: Process, request: str, happens: Callable[[], object]) -> None:
    """Let something happen, and the caches show it, while the first request of a kind is under way."""

    async def turn(told: str) -> None:
        if told == request and pending:
            pending.pop()()
            process.deliver()

    pending = [happens]
    cluster.turn = turn


def vm_goes(cluster: Cluster) -> None:
    """Delete vm-1 at once, and its migration with it."""
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.remove(MIGRATIONS, "default/m-1")


async def moves(cluster: Cluster, process: Process) -> None:
    """Let vm-2 move, which needs the only slot and more than half of node-2."""
    cluster.migrate("m-2", vm="vm-2")
    await process.settle()
    assert cluster.migration("m-2")["phase"] == "Succeeded", cluster.migration("m-2")


async def test_a_vm_that_goes_while_nodes_are_looked_at_and_has_no_room_holds_no_slot(cluster: Cluster) -> None:
    """It stands in no line any more, in which a slot would be granted to it."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.crowd("node-2")
    cluster.migrate()
    once(cluster, process, "list pods", lambda: vm_goes(cluster))
    process.deliver()
    await process.step()
    cluster.remove(PODS, "other/stranger")
    await moves(cluster, process)


async def test_a_vm_that_goes_while_nodes_are_looked_at_holds_no_room(cluster: Cluster) -> None:
    """Nobody would ever give it back."""
    process = await ready(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    once(cluster, process, "list pods", lambda: vm_goes(cluster))
    process.deliver()
    await process.step()
    cluster.remove(NODES, "/node-2")
    cluster.add_node("node-2")
    assert process.migrations._headroom.used("node-2").cpu == 0
    await moves(cluster, process)


@pytest.mark.parametrize("request_", ["list pods", "dry-run pods"])
async def test_a_migration_that_is_cancelled_while_its_questions_are_asked_leaves_the_vm_alone(
    cluster: Cluster, request_: str
) -> None:
    """Whoever cancels before the claim keeps the pod."""
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
async def test_a_migration_that_is_deleted_while_its_questions_are_asked_leaves_the_vm_alone(
    cluster: Cluster, request_: str
) -> None:
    """Deleting is how to cancel before there was a field for it."""
    process = await ready(cluster)
    before = cluster.status()["podUID"]
    cluster.add_node("node-2")
    cluster.migrate()
    once(cluster, process, request_, lambda: cluster.remove(MIGRATIONS, "default/m-1"))
    await process.settle()
    assert cluster.status()["podUID"] == before
    await moves(cluster, process)


async def test_who_waited_long_for_a_turn_is_refused_no_sooner_than_others(cluster: Cluster) -> None:
    """The time in line is not the time for which it was refused."""
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


async def test_what_is_refused_for_its_time_fails_however_often_the_process_changes(cluster: Cluster) -> None:
    """Each process counts from its own first look; one that stays ends it."""
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


async def test_a_claim_whose_migration_was_deleted_ends_although_no_target_can_be_made(cluster: Cluster) -> None:
    """Its slot is for others; the VM's pod comes when it can."""
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
