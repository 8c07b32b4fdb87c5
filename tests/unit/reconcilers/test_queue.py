"""The queue of migrations as a whole: no slot stays free in vain, and waiting costs little."""

from __future__ import annotations

import pytest

from controller.domain import names
from controller.domain.migration.limits import Limits
from controller.domain.migration.phases import GUESS
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process, wave


def occupy(cluster: Cluster, node: str, cpu: str, name: str = "filler") -> Document:
    """Put a foreign pod on a node."""
    requests = {"requests": {"cpu": cpu}}
    return cluster.add(
        PODS.plural,
        {
            "metadata": {"name": name, "namespace": "other"},
            "spec": {"nodeName": node, "containers": [{"resources": requests}]},
            "status": {"phase": "Running"},
        },
    )


async def look(process: Process, seconds: float = 0.0) -> None:
    """Let the caches catch up, the controller act, and the pods follow."""
    process.deliver()
    await process.step()
    process.cluster.run_pods()
    process.cluster.finish_deletions()
    process.cluster.pass_time(seconds)


async def test_migrations_without_capacity_do_not_block_a_smaller_one() -> None:
    """Although all six are older."""
    cluster, process = await wave(Limits(2, 2), 1, 7)
    for number in range(6):
        cluster.apply_vm(f"vm-{number}", cpu="0.40")
    cluster.add_node("node-1")
    occupy(cluster, "node-1", "30")
    for _ in range(8):
        await look(process)
    assert cluster.migration("m-6")["phase"] == "Succeeded"
    assert {cluster.migration(f"m-{number}")["phase"] for number in range(6)} == {"Pending"}


@pytest.mark.parametrize(
    "error",
    [
        errors.ConflictError(409, "Conflict", "the object has been modified"),
        errors.ForbiddenError(403, "Forbidden", "denied by a policy"),
        errors.ServerError(500, "InternalError", "failed calling webhook"),
    ],
)
async def test_a_claim_that_fails_gives_its_slot_back(error: errors.StatusError) -> None:
    """Another VM moves."""
    cluster, process = await wave(Limits(1, 1), 2, 2)
    fault = Fault("patch", VIRTUAL_MACHINES.plural, error, commit=False)
    cluster.faults.append(fault)
    process.deliver()
    with pytest.raises(type(error)):
        await process.migrations.reconcile("default/vm-0")
    await process.migrations.reconcile("default/vm-1")
    assert "migration" in cluster.status("vm-1")


async def test_a_claim_whose_reply_was_lost_retains_its_slot() -> None:
    """It was written, so no second VM may move."""
    cluster, process = await wave(Limits(1, 1), 2, 2)
    cluster.faults.append(Fault("patch", VIRTUAL_MACHINES.plural, errors.TransportError("reset")))
    process.deliver()
    with pytest.raises(errors.TransportError):
        await process.migrations.reconcile("default/vm-0")
    await process.migrations.reconcile("default/vm-1")
    assert "migration" in cluster.status("vm-0")
    assert "migration" not in cluster.status("vm-1")
    await process.settle(rounds=100)
    assert [cluster.migration(f"m-{number}")["phase"] for number in range(2)] == ["Succeeded", "Succeeded"]


async def test_a_moving_vm_that_changes_its_class_has_no_slot() -> None:
    """The new class may have no controller."""
    cluster, process = await wave(Limits(1, 1), 2, 2)
    process.deliver()
    await process.migrations.reconcile("default/vm-0")
    cluster.edit(VIRTUAL_MACHINES, "default/vm-0", labels={names.CONTROLLER_CLASS: "other"})
    for _ in range(8):
        await look(process, 1)
    assert cluster.migration("m-1")["phase"] == "Succeeded"


async def test_a_claim_without_a_name_is_released_and_its_slot_with_it() -> None:
    """It was written by hand."""
    cluster, process = await wave(Limits(1, 1), 2, 2)
    claim = {"sourceNode": "node-0", "sourceIncarnation": 0}
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-0", {**cluster.status("vm-0"), "migration": claim})
    await process.settle(rounds=100)
    assert [cluster.migration(f"m-{number}")["phase"] for number in range(2)] == ["Succeeded", "Succeeded"]


async def test_no_pods_are_listed_while_no_slot_is_free() -> None:
    """For any number of waiting migrations."""
    cluster, process = await wave(Limits(2, 2), 2, 60)
    cluster.unfit.add("node-1")
    for _ in range(4):
        await look(process)
    cluster.requests.clear()
    for _ in range(60):
        await look(process, 2)
    waiting = [cluster.migration(f"m-{number}")["phase"] for number in range(60)]
    assert (waiting.count("Pending"), "list pods" in cluster.requests) == (58, False)


async def test_pods_are_listed_at_most_every_five_seconds() -> None:
    """For any number of migrations without capacity, and without limits."""
    cluster, process = await wave(Limits(0, 0), 2, 60)
    occupy(cluster, "node-1", "32")
    cluster.requests.clear()
    for _ in range(60):
        await look(process, 1)
    assert {cluster.migration(f"m-{number}")["phase"] for number in range(60)} == {"Pending"}
    assert cluster.requests.count("list pods") <= 60 / 5 + 1


async def test_a_new_node_wakes_a_waiting_migration_at_once() -> None:
    """Without a timer."""
    cluster, process = await wave(Limits(), 2, 1)
    occupy(cluster, "node-1", "32")
    await look(process, 1)
    assert cluster.migration("m-0")["phase"] == "Pending"
    cluster.add_node("node-2")
    process.deliver()
    assert "default/vm-0" in process.moving
    await process.step()
    assert "migration" in cluster.status("vm-0")


async def test_a_heartbeat_of_a_node_wakes_no_migration() -> None:
    """It does not change which pods the node accepts."""
    cluster, process = await wave(Limits(), 2, 1)
    occupy(cluster, "node-1", "32")
    await look(process)
    await look(process)
    process.deliver()
    process.moving.clear()
    cluster.edit(NODES, "/node-1", annotations={"seen": "again"})
    process.deliver()
    assert process.moving == {}


# --- reservations --------------------------------------------------------------------------------------------------


async def big_ones(limits: Limits) -> tuple[Cluster, Process]:
    """Two VMs of half a node on node-0, a node with capacity for one of them, and a migration of each."""
    cluster, process = Cluster(), None
    cluster.add_node("node-0")
    for name in ("a", "b"):
        cluster.apply_vm(name, cpu="0.5")
    process = Process(cluster, limits=limits)
    await process.settle()
    cluster.pass_time(3600)
    cluster.add_node("node-1")
    occupy(cluster, "node-1", "12")
    for name in ("a", "b"):
        cluster.migrate(f"m-{name}", vm=name)
    return cluster, process


@pytest.mark.parametrize("limits", [Limits(), Limits(0, 0)])
async def test_capacity_is_reserved_for_one_vm_only(limits: Limits) -> None:
    """One moves; the other waits, untouched, with a message."""
    cluster, process = await big_ones(limits)
    stays = cluster.status("b")["podUID"]
    for _ in range(20):
        await look(process, 1)
    assert cluster.migration("m-a")["phase"] == "Succeeded"
    assert cluster.migration("m-b")["phase"] == "Pending"
    assert "1 without room (node-1 lacks 12 CPU)" in cluster.migration("m-b")["message"]
    assert (cluster.status("b")["podUID"], cluster.status("b")["phase"]) == (stays, "Running")


async def test_a_new_leader_restores_reservations() -> None:
    """From the claim; the target has no node yet."""
    cluster, process = await big_ones(Limits())
    process.deliver()
    await process.migrations.reconcile("default/a")
    assert cluster.status("a")["migration"]["reservedNode"] == "node-1"
    fresh = Process(cluster)
    await fresh.migrations.reconcile("default/b")
    assert "migration" not in cluster.status("b")


async def test_the_reservation_of_a_failed_claim_is_released() -> None:
    """Another VM may have the capacity at once."""
    cluster, process = await big_ones(Limits())
    denied = errors.ForbiddenError(403, "Forbidden", "denied by a policy")
    cluster.faults.append(Fault("patch", VIRTUAL_MACHINES.plural, denied, commit=False))
    process.deliver()
    with pytest.raises(errors.ForbiddenError):
        await process.migrations.reconcile("default/a")
    await process.migrations.reconcile("default/b")
    assert cluster.status("b")["migration"]["reservedNode"] == "node-1"


async def test_the_capacity_that_a_moved_vm_leaves_is_used() -> None:
    """The end of a move wakes migrations without capacity, without a timer."""
    cluster, process = await big_ones(Limits())
    cluster.apply_vm("c", cpu="0.3")
    await look(process, 1)
    await look(process, 1)
    cluster.migrate("m-c", vm="c")
    cluster.remove(PODS, "other/filler")
    await process.settle(rounds=60)
    assert {cluster.migration(f"m-{name}")["phase"] for name in "ab"} == {"Succeeded"}


async def with_a_full_node(namespace: str | None) -> tuple[Cluster, Process]:
    """Return a VM with a migration, and a node that pods of another namespace fill."""
    cluster, _ = await wave(Limits(), 2, 1)
    occupy(cluster, "node-1", "32")
    return cluster, Process(cluster, namespace=namespace)


async def test_without_access_to_other_namespaces_the_message_has_a_caveat_until_the_target_has_a_node() -> None:
    """The scheduler knows all pods, and may find no node."""
    cluster, process = await with_a_full_node("default")
    published = []
    for _ in range(8):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
        published.append((cluster.migration("m-0")["phase"], cluster.migration("m-0").get("message")))
    cluster.run_pods()
    await process.settle()

    assert published[-1] == ("Scheduling", GUESS)
    assert {message for phase, message in published if phase != "Pending"} == {GUESS}
    assert (cluster.migration("m-0")["phase"], cluster.migration("m-0").get("message")) == ("Succeeded", None)


async def test_the_message_of_an_unschedulable_target_has_the_caveat_as_well() -> None:
    """It explains why the VM was taken down."""
    cluster, process = await with_a_full_node("default")
    for _ in range(8):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
    cluster.cordon("node-1")
    cluster.run_pods()
    process.deliver()
    await process.step()

    assert (cluster.migration("m-0")["phase"], cluster.migration("m-0")["message"]) == (
        "Scheduling",
        f"no node ({GUESS})",
    )


async def test_with_access_to_all_pods_the_message_has_no_caveat() -> None:
    """A full node is refused."""
    cluster, process = await with_a_full_node(None)
    for _ in range(4):
        await look(process)
    assert cluster.migration("m-0")["phase"] == "Pending"
    assert "node-1, the only suitable node, has no room for it now" in cluster.migration("m-0")["message"]
    cluster.remove(PODS, "other/filler")
    published = set()
    for _ in range(20):
        await look(process, 1)
        published.add((cluster.migration("m-0")["phase"], cluster.migration("m-0").get("message")))
    assert ("Succeeded", None) in published
    assert GUESS not in {message for _, message in published}


async def test_the_caveat_costs_no_further_write() -> None:
    """It is in the first write after the claim."""
    counts = []
    for namespace in (None, "default"):
        cluster, _ = await wave(Limits(), 2, 1)
        process = Process(cluster, namespace=namespace)
        cluster.writes.clear()
        await process.settle()
        assert cluster.migration("m-0")["phase"] == "Succeeded"
        counts.append(cluster.writes.count(f"patch {MIGRATIONS.plural}"))
    assert counts[0] == counts[1]


async def test_without_access_to_other_namespaces_a_full_node_is_still_refused() -> None:
    """The known pods fill it."""
    cluster, _ = await wave(Limits(), 2, 1)
    occupy(cluster, "node-1", "32")
    filler = cluster.objects[PODS.plural, "other/filler"]
    cluster.remove(PODS, "other/filler")
    cluster.add(PODS.plural, {**filler, "metadata": {"name": "filler", "namespace": "default"}})
    process = Process(cluster, namespace="default")
    for _ in range(4):
        await look(process)
    assert (cluster.migration("m-0")["phase"], cluster.status("vm-0")["phase"]) == ("Pending", "Running")
    assert "node-1, the only suitable node, has no room for it now" in cluster.migration("m-0")["message"]


# --- dry runs ----------------------------------------------------------------------------------------------------


async def reconcile_with_dry_run(cluster: Cluster, process: Process, error: errors.KubeError | None) -> None:
    """Let every dry run fail with this error, or succeed, and reconcile vm-0's migration."""
    fault = None if error is None else Fault("dry-run", PODS.plural, error, commit=False)
    cluster.intercept = lambda method, _: fault if method == "dry-run" else None
    process.deliver()
    await process.migrations.reconcile("default/vm-0")


async def test_the_dry_run_has_exactly_the_pod_that_is_created_later() -> None:
    """The same function builds both."""
    cluster, process = await wave(Limits(), 2, 1, addedNodeSelector={"type": "kwok"}, targetNode="node-1")
    for _ in range(4):
        await look(process)
    [dry_run] = cluster.dry_runs
    created = cluster.objects[PODS.plural, f"default/{dry_run['metadata']['name']}"]
    assert dry_run["spec"] == {key: value for key, value in created["spec"].items() if key != "nodeName"}
    added = {key: created["metadata"][key] for key in ("uid", "creationTimestamp", "resourceVersion")}
    assert created["metadata"] == {**dry_run["metadata"], **added}
    assert cluster.migration("m-0")["phase"] == "Succeeded"


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidError(422, "Invalid", "must be less than or equal to cpu limit"),
        errors.ForbiddenError(403, "Forbidden", "violates PodSecurity"),
    ],
)
async def test_a_refused_dry_run_fails_the_migration_and_leaves_the_vm_untouched(
    error: errors.StatusError,
) -> None:
    """With the server's message; another VM gets the slot."""
    cluster, process = await wave(Limits(1, 1), 2, 2)
    before = cluster.status("vm-0")
    await reconcile_with_dry_run(cluster, process, error)
    assert (cluster.migration("m-0")["phase"], cluster.migration("m-0")["failureReason"]) == ("Failed", "TargetRefused")
    assert error.message in cluster.migration("m-0")["message"]
    assert cluster.status("vm-0") == before
    cluster.intercept = None
    await process.migrations.reconcile("default/vm-1")
    assert "migration" in cluster.status("vm-1")


@pytest.mark.parametrize(
    "error",
    [
        errors.ServerError(500, "InternalError", "failed calling webhook: connection refused"),
        errors.TooManyRequestsError(429, "TooManyRequests", "slow down"),
        errors.TransportError("no reply"),
        errors.ForbiddenError(403, "Forbidden", "exceeded quota: q, requested: cpu=1, used: cpu=99, limited: cpu=1"),
    ],
)
async def test_a_temporarily_refused_migration_waits_without_a_slot_and_asks_every_fifteen_seconds(
    error: errors.KubeError,
) -> None:
    """Its reservation is released, too."""
    cluster, process = await wave(Limits(1, 1), 2, 2, unschedulableTimeoutSeconds=40)
    cluster.remove(MIGRATIONS, "default/m-1")
    cluster.requests.clear()
    for _ in range(40):
        await reconcile_with_dry_run(cluster, process, error)
        cluster.pass_time(1)
    assert cluster.requests.count("dry-run pods") == 3
    assert cluster.migration("m-0")["phase"] == "Pending"
    assert "migration" not in cluster.status("vm-0")
    cluster.intercept = None
    cluster.migrate("m-2", vm="vm-1")
    process.deliver()
    await process.migrations.reconcile("default/vm-1")
    assert "migration" in cluster.status("vm-1")


async def test_a_temporary_refusal_fails_the_migration_at_its_timeout() -> None:
    """The VM is untouched."""
    cluster, process = await wave(Limits(), 2, 1, unschedulableTimeoutSeconds=40)
    before = cluster.status("vm-0")
    for _ in range(45):
        await reconcile_with_dry_run(
            cluster, process, errors.ServerError(500, "InternalError", "failed calling webhook")
        )
        cluster.pass_time(1)
    assert (cluster.migration("m-0")["phase"], cluster.migration("m-0")["failureReason"]) == ("Failed", "TargetRefused")
    assert cluster.status("vm-0") == before


async def test_a_quota_that_only_the_source_fills_is_no_refusal() -> None:
    """The source is deleted first."""
    cluster, process = await wave(Limits(), 2, 1)
    full = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    await reconcile_with_dry_run(cluster, process, errors.ForbiddenError(403, "Forbidden", full))
    assert "migration" in cluster.status("vm-0")


async def test_a_target_whose_name_is_taken_is_a_temporary_refusal() -> None:
    """The VM would be down until that pod is deleted."""
    cluster, process = await wave(Limits(), 2, 1)
    await reconcile_with_dry_run(cluster, process, None)
    name = cluster.dry_runs[0]["metadata"]["name"]
    cluster, process = await wave(Limits(), 2, 1)
    cluster.add(
        PODS.plural, {"metadata": {"name": name, "namespace": "default"}, "spec": {}, "status": {"phase": "Pending"}}
    )
    await reconcile_with_dry_run(cluster, process, None)
    assert "already exists" in cluster.migration("m-0")["message"]
    assert "migration" not in cluster.status("vm-0")
