"""Migrations on the model of the API server: successes, refusals, and interventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.migration.limits import Limits
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.kube.times import parse_timestamp
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process, running, wave


async def begin_to_migrate(cluster: Cluster, process: Process) -> None:
    """Create a migration, and reconcile until its source terminates."""
    cluster.migrate()
    for _ in range(4):
        process.deliver()
        await process.step()


def last_status(cluster: Cluster) -> tuple[str, str | None]:
    """Return phase and failure of the migration that changed last; it may be deleted by now."""
    status = [document["status"] for plural, document, _ in cluster.log if plural == MIGRATIONS.plural][-1]
    return status["phase"], status.get("failureReason")


def migrations(cluster: Cluster) -> list[str]:
    """Return the names of the existing migrations."""
    return [
        document["metadata"]["name"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    ]


# --- moving ----------------------------------------------------------------------------------------------------


async def test_a_migration_moves_its_vm_to_another_node(cluster: Cluster) -> None:
    """The next incarnation runs there; VM and migration have matching statuses."""
    process = await running(cluster)
    source = cluster.status()["podName"]
    cluster.migrate()
    await process.settle()
    vm, move = cluster.status(), cluster.migration()
    assert (vm["phase"], vm["nodeName"], vm["incarnation"]) == ("Running", "node-2", 1)
    assert "migration" not in vm
    assert (move["phase"], move["sourceNode"], move["targetNode"]) == ("Succeeded", "node-1", "node-2")
    assert (move["sourcePod"], move["targetPod"]) == (source, vm["podName"])
    assert cluster.violations == []
    assert [event.reason for event in process.events if "igration" in event.reason] == ["SuccessfulMigration"]


async def test_a_moving_vm_is_scheduling_until_its_target_runs(cluster: Cluster) -> None:
    """From the claim on."""
    process = await running(cluster)
    before = len(cluster.log)
    cluster.migrate()
    await process.settle()
    phases = [
        document["status"]["phase"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural
    ]
    assert list(dict.fromkeys(phases)) == ["Scheduling", "Running"]


async def test_the_claim_ends_the_incarnation_in_the_same_write(cluster: Cluster) -> None:
    """No client sees the claim without it."""
    process = await running(cluster)
    before = len(cluster.log)
    cluster.migrate()
    process.deliver()
    await process.migrations.reconcile("default/vm-1")
    [write] = [document["status"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural]
    assert (write["migration"]["name"], write["incarnation"], write["phase"]) == ("m-1", 1, "Scheduling")


async def test_a_claim_ends_no_incarnation_of_which_a_create_may_commit(cluster: Cluster) -> None:
    """A new process does not know what the previous one sent."""
    await running(cluster)
    cluster.now = parse_timestamp(cluster.status()["conditions"][-1]["lastTransitionTime"]) or cluster.now
    process = Process(cluster)
    cluster.migrate()
    process.deliver()
    await process.migrations.reconcile("default/vm-1")
    assert (cluster.status()["migration"]["name"], cluster.status()["incarnation"]) == ("m-1", 0)
    await process.settle(rounds=60)
    assert (cluster.status()["incarnation"], cluster.migration()["phase"]) == (1, "Succeeded")


async def test_a_vm_moves_to_the_target_node_of_its_migration(cluster: Cluster) -> None:
    """Although the newest node would be chosen."""
    process = await running(cluster)
    cluster.add_node("node-3")
    cluster.migrate(targetNode="node-2")
    await process.settle()
    assert cluster.status()["nodeName"] == "node-2"


async def test_a_settled_migration_costs_no_further_write(cluster: Cluster) -> None:
    """Neither by this process nor by the next."""
    process = await running(cluster)
    cluster.migrate()
    await process.settle()
    before = list(cluster.writes)
    for _ in range(5):
        await process.migrations.reconcile("default/vm-1")
    await Process(cluster).settle()
    assert cluster.writes == before


# --- preflight: refused before anything is deleted ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "spec", "reason"),
    [
        (lambda _: None, {"vm": "nope"}, "VMNotFound"),
        (lambda c: c.apply_vm(running=False), {}, "VMNotRunning"),
        (lambda _: None, {"targetNode": "node-9"}, "TargetNotFound"),
        (lambda c: c.cordon("node-2"), {"targetNode": "node-2"}, "TargetUnschedulable"),
        (lambda _: None, {"targetNode": "node-1"}, "TargetIsSource"),
        (lambda c: c.cordon("node-1"), {"targetNode": "node-1"}, "TargetIsSource"),
        (lambda c: c.cordon("node-2"), {}, "NoSuitableNode"),
        (lambda _: None, {"addedNodeSelector": {"disk": "fast"}}, "NoSuitableNode"),
        (lambda _: None, {"cancel": True}, "Cancelled"),
    ],
)
async def test_a_permanent_refusal_fails_at_once_and_leaves_the_vm_untouched(
    cluster: Cluster, prepare: Callable[[Cluster], Any], spec: dict[str, Any], reason: str
) -> None:
    """With its reason."""
    process = await running(cluster)
    prepare(cluster)
    await process.settle()
    before = [pod["metadata"]["uid"] for pod in cluster.pods()]
    cluster.migrate(**spec)
    await process.settle()
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", reason)
    assert [pod["metadata"]["uid"] for pod in cluster.pods()] == before


async def test_a_migration_without_capacity_waits_with_a_message_until_its_timeout(cluster: Cluster) -> None:
    """Foreign pods count; the VM keeps running."""
    process = await running(cluster)
    before = [pod["metadata"]["uid"] for pod in cluster.pods()]
    foreign = cluster.crowd("node-2")
    cluster.migrate(unschedulableTimeoutSeconds=60)
    process.deliver()
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    assert cluster.migration()["message"] == (
        "node-2, the only suitable node, has no room for it now: "
        "0/2 nodes fit: 1 where it runs, 1 without room (node-2 lacks 2.2 CPU)"
    )
    await process.settle(rounds=200)
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "NoRoom")
    ours = [pod["metadata"]["uid"] for pod in cluster.pods() if pod["metadata"]["uid"] != foreign["metadata"]["uid"]]
    assert ours == before


async def test_a_waiting_migration_moves_once_capacity_is_free(cluster: Cluster) -> None:
    """After the deletion of a foreign pod."""
    process = await running(cluster)
    cluster.crowd("node-2")
    cluster.migrate()
    process.deliver()
    await process.step()
    cluster.remove(PODS, "other/stranger")
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


# --- the scheduler disagrees -------------------------------------------------------------------------------------


async def test_an_unschedulable_target_is_rolled_back(cluster: Cluster) -> None:
    """After its timeout the VM runs on any node that fits, its old one included."""
    process = await running(cluster)
    cluster.unfit = {"node-2"}
    cluster.migrate(unschedulableTimeoutSeconds=30)
    await process.settle(rounds=200)
    move = cluster.migration()
    assert (move["phase"], move["failureReason"]) == ("Failed", "RolledBack")
    assert "no node" in move["message"]
    assert (cluster.status()["phase"], cluster.status()["nodeName"]) == ("Running", "node-1")
    assert "migration" not in cluster.status()
    assert cluster.violations == []
    reasons = [event.reason for event in process.events]
    assert reasons.count("migrationTargetPodUnschedulable") == 1
    assert reasons.count("FailedMigration") == 1


# --- limits ------------------------------------------------------------------------------------------------------


def _claimed(cluster: Cluster) -> list[set[str]]:
    """Return the claimed VMs after each write of the history."""
    claimed: set[str] = set()
    history = []
    for plural, document, deleted in cluster.log:
        if plural == VIRTUAL_MACHINES.plural:
            name = document["metadata"]["name"]
            claimed = claimed | {name} if "migration" in document["status"] and not deleted else claimed - {name}
            history.append(claimed)
    return history


@pytest.mark.parametrize(("limits", "most"), [(Limits(), 2), (Limits(5, 0), 5), (Limits(0, 0), 12), (Limits(1, 2), 1)])
async def test_all_vms_move_and_never_more_at_once_than_the_limits(limits: Limits, most: int) -> None:
    """By default two away from a node, five in all; 0 means any number."""
    cluster, process = await wave(limits, 3, 12)
    await process.settle(rounds=300, patience=0.2)
    assert max(len(claimed) for claimed in _claimed(cluster)) == most
    phases = [cluster.migration(f"m-{number}")["phase"] for number in range(12)]
    assert phases == ["Succeeded"] * 12
    assert cluster.violations == []


async def test_a_migration_that_waits_for_a_slot_names_the_limit(cluster: Cluster) -> None:
    """The third of one node."""
    cluster, process = await wave(Limits(), 3, 3)
    process.deliver()
    await process.step()
    assert cluster.migration("m-2")["message"] == "2 VMs are leaving node-0 already; at most 2 may at once"


async def test_priority_ranks_before_age() -> None:
    """A drain's migration overtakes older ones."""
    cluster, process = await wave(Limits(1, 1), 3, 4)
    cluster.remove(MIGRATIONS, "default/m-3")
    process.deliver()
    await process.step()
    cluster.migrate("m-late", vm="vm-3", priority="system-critical")
    await process.settle(rounds=300, patience=0.2)
    order = list(dict.fromkeys(name for claimed in _claimed(cluster) for name in claimed))
    assert order == ["vm-0", "vm-3", "vm-1", "vm-2"]


# --- failures and history ----------------------------------------------------------------------------------------


async def test_the_backoff_of_a_vm_is_twenty_seconds_then_forty(cluster: Cluster) -> None:
    """After failures; a success would end it."""
    process = await running(cluster)
    waits = []
    for name in ("m-1", "m-2", "m-3"):
        cluster.unfit = {"node-2"}
        cluster.migrate(name, unschedulableTimeoutSeconds=1)
        started = cluster.now
        for _ in range(400):
            process.deliver()
            await process.step()
            if "migration" in cluster.status():
                break
            cluster.pass_time(0.5)
        waits.append((cluster.now - started).total_seconds())
        await process.settle(rounds=50, patience=0.1)
        assert cluster.migration(name)["failureReason"] == "RolledBack"
    assert waits[0] == 0
    assert 15 <= waits[1] <= 20.5
    assert 35 <= waits[2] <= 40.5
    assert "MigrationBackoff" in [event.reason for event in process.events]


async def test_a_refused_migration_causes_no_backoff(cluster: Cluster) -> None:
    """It left the VM untouched."""
    process = await running(cluster)
    for number in range(4):
        cluster.migrate(f"typo-{number}", targetNode="no-such-node")
        await process.settle()
    began = cluster.now
    cluster.migrate()
    await process.settle(patience=0.1)
    assert cluster.migration()["phase"] == "Succeeded"
    assert (cluster.now - began).total_seconds() < 1


async def test_the_last_five_finished_migrations_are_retained(cluster: Cluster) -> None:
    """Older ones are deleted."""
    process = await running(cluster)
    for number in range(8):
        cluster.migrate(f"m-{number}")
        await process.settle()
        cluster.pass_time(60)
    retained = [
        document["metadata"]["name"]
        for (plural, _), document in cluster.objects.items()
        if plural == "virtualmachinemigrations"
    ]
    assert retained == [f"m-{number}" for number in range(3, 8)]


async def test_two_migrations_created_at_once_move_their_vm_once(cluster: Cluster) -> None:
    """The second one fails."""
    process = await running(cluster)
    cluster.migrate("m-1")
    cluster.migrate("m-2")
    await process.settle()
    assert cluster.migration("m-1")["phase"] == "Succeeded"
    assert cluster.migration("m-2")["failureReason"] == "AnotherMigrationInProgress"
    assert cluster.status()["incarnation"] == 1


@pytest.mark.parametrize(("why", "reason"), [("quota", "CompletionTimeout"), ("invalid", "VMNotRunning")])
async def test_a_target_that_cannot_be_created_fails_its_migration(cluster: Cluster, why: str, reason: str) -> None:
    """The claim and the slot are released."""
    process = await running(cluster)
    cluster.migrate(completionTimeoutSeconds=60)
    process.deliver()
    await process.step()
    if why == "invalid":
        cluster.apply_vm(cpu="plenty")
    quota = errors.ForbiddenError(403, "Forbidden", "exceeded quota")
    cluster.intercept = lambda method, _: Fault(method, "pods", quota, commit=False) if method == "create" else None
    for _ in range(90):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
        cluster.pass_time(1)
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", reason)
    assert "migration" not in cluster.status()
    cluster.intercept = None
    cluster.apply_vm()
    await process.settle()
    assert cluster.status()["phase"] == "Running"


async def test_a_spec_that_turns_invalid_after_the_claim_fails_the_migration(cluster: Cluster) -> None:
    """No target can be created, so the claim is removed."""
    process = await running(cluster)
    cluster.migrate()
    process.deliver()
    source = cluster.status()["podName"]
    await process.migrations.reconcile("default/vm-1")
    assert "migration" in cluster.status()
    cluster.apply_vm(cpu="plenty")
    cluster.remove(PODS, f"default/{source}")
    await process.settle()
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "VMNotRunning")
    assert "migration" not in cluster.status()


async def test_a_deleted_migration_releases_a_vm_whose_spec_is_invalid(cluster: Cluster) -> None:
    """No rollback is awaited, since no target can be created."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    assert cluster.status()["incarnation"] == 1
    cluster.apply_vm(cpu="plenty")
    cluster.remove(MIGRATIONS, "default/m-1")
    await process.settle()
    assert cluster.status()["phase"] == "Failed"
    assert "migration" not in cluster.status()


async def test_no_target_is_created_for_a_vm_whose_deletion_the_watch_has_not_shown(cluster: Cluster) -> None:
    """The VM was deleted while its source was terminating."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    [source] = cluster.live()
    assert "deletionTimestamp" in source["metadata"]
    process.deliver()
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.finish_deletions()
    for _ in range(4):
        process.deliver(withhold=VIRTUAL_MACHINES.plural)
        await process.step()
    assert cluster.pods() == []
    await process.settle()
    assert last_status(cluster) == ("Failed", "VMDeleted")


async def test_a_migration_of_a_deleted_vm_fails_as_vm_deleted_not_as_claim_lost(cluster: Cluster) -> None:
    """The process has a VM from before the claim in its cache."""
    process = await running(cluster)
    late = Process(cluster)
    await begin_to_migrate(cluster, process)
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.finish_deletions()
    late.deliver(withhold=VIRTUAL_MACHINES.plural)
    await late.step()
    await late.settle()
    assert last_status(cluster) == ("Failed", "VMDeleted")


# --- evictions ---------------------------------------------------------------------------------------------------


def _records(cluster: Cluster) -> list[Any]:
    return [document for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural]


async def test_an_eviction_is_recorded_as_a_migration(cluster: Cluster) -> None:
    """With source and target."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    cluster.evict(pod)
    await process.settle()
    [record] = _records(cluster)
    assert record["spec"]["reason"] == "Evicted"
    status = record["status"]
    assert (status["phase"], status["sourceNode"], status["sourcePod"]) == ("Succeeded", "node-1", pod)
    assert (status["targetNode"], status["targetPod"]) == ("node-2", cluster.status()["podName"])
    assert cluster.status()["incarnation"] == 1
    assert cluster.violations == []


async def test_an_eviction_between_two_reconciles_is_recorded(cluster: Cluster) -> None:
    """The deleted pod in the watch event has the condition."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]


async def test_the_next_pod_prefers_another_node_after_an_eviction(cluster: Cluster) -> None:
    """A preference only."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    process.deliver()
    for _ in range(4):
        await process.step()
        process.deliver()
    [pod] = cluster.pods()
    [preferred] = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}
    ]


async def test_a_deleted_node_is_recorded_as_node_lost(cluster: Cluster) -> None:
    """The VM moves."""
    process = await running(cluster)
    cluster.remove(NODES, "/node-1")
    await process.settle()
    [record] = _records(cluster)
    assert (record["spec"]["reason"], record["status"]["phase"]) == ("NodeLost", "Succeeded")
    assert cluster.status()["nodeName"] == "node-2"


async def test_the_record_of_an_unpublished_pod_succeeds(cluster: Cluster) -> None:
    """Its successor has the same incarnation."""
    process = Process(cluster)
    await process.reconcile()
    cluster.evict(cluster.pods()[0]["metadata"]["name"])
    cluster.finish_deletions()
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]
    assert cluster.status()["phase"] == "Running"


async def test_a_record_succeeds_after_a_wiped_status(cluster: Cluster) -> None:
    """The incarnation restarts; the next pod still counts as the successor."""
    process = await running(cluster)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    await process.settle()
    cluster.pass_time(3600)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {"phase": "Pending"})
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]


async def test_a_pod_deleted_by_hand_gets_no_record(cluster: Cluster) -> None:
    """It is replaced."""
    process = await running(cluster)
    cluster.edit(PODS, "default/" + cluster.status()["podName"], deletionTimestamp="2026-01-15T12:00:00Z")
    await process.settle()
    assert _records(cluster) == []
    assert cluster.status()["incarnation"] == 1


async def test_after_a_crash_an_eviction_has_one_record_and_one_move(cluster: Cluster) -> None:
    """The record's name derives from the pod's UID."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    assert len(_records(cluster)) == 1
    await Process(cluster).settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]
    assert cluster.status()["incarnation"] == 1
    assert cluster.violations == []


async def test_a_record_that_a_user_created_fails(cluster: Cluster) -> None:
    """The VM is not moved."""
    process = await running(cluster)
    cluster.migrate(recordOf="some-uid")
    await process.settle()
    assert cluster.migration()["failureReason"] == "InvalidRecord"
    assert cluster.status()["incarnation"] == 0


async def test_a_claim_that_only_the_cache_misses_is_not_lost(cluster: Cluster) -> None:
    """After a live read the migration continues."""
    process = await running(cluster)
    process.deliver()
    before = process.caches.vms.get("default/vm-1")
    assert before is not None
    cluster.migrate()
    while cluster.migration()["phase"] == "Pending":
        process.deliver()
        await process.step()
    process.deliver()
    process.caches.vms.replace([before], str(cluster.revision))
    await process.step()
    assert cluster.migration()["phase"] != "Failed"

    process.caches.vms.replace([msgspec.convert(cluster.vm(), VirtualMachine)], str(cluster.revision))
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


# --- namesakes ---------------------------------------------------------------------------------------------------


def _replace_vm(cluster: Cluster) -> None:
    """Delete the VM and its pods, and create a namesake."""
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    for pod in cluster.live():
        cluster.remove(PODS, f"default/{pod['metadata']['name']}")
    cluster.apply_vm()


async def test_a_migration_records_the_uid_of_its_vm_in_its_first_status(cluster: Cluster) -> None:
    """One without a VM records none."""
    process = await running(cluster)
    cluster.cordon("node-2")
    cluster.unfit = {"node-2"}
    cluster.migrate()
    cluster.migrate("m-2", vm="missing")
    process.deliver()
    await process.step()
    assert cluster.migration()["vmUID"] == cluster.vm()["metadata"]["uid"]
    assert "vmUID" not in cluster.migration("m-2")


async def test_a_pending_migration_does_not_move_a_namesake(cluster: Cluster) -> None:
    """It fails, since its VM was deleted."""
    process = await running(cluster)
    cluster.crowd("node-2")
    cluster.migrate(unschedulableTimeoutSeconds=3600)
    process.deliver()
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    _replace_vm(cluster)
    for _ in range(6):
        process.deliver()
        await process.step()
        cluster.run_pods()
    cluster.remove(PODS, "other/stranger")
    await process.settle()
    assert last_status(cluster) == ("Failed", "VMDeleted")
    assert (cluster.status()["phase"], cluster.status()["incarnation"]) == ("Running", 0)


async def test_a_cache_that_shows_the_previous_vm_fails_no_migration_of_its_namesake(cluster: Cluster) -> None:
    """The previous process knew the new VM already."""
    process = await running(cluster)
    _replace_vm(cluster)
    await Process(cluster).settle()
    move = cluster.migrate()
    uid = cluster.vm()["metadata"]["uid"]
    cluster.set_status(MIGRATIONS, "default/m-1", {**move["status"], "vmUID": uid})
    process.deliver(withhold=VIRTUAL_MACHINES.plural)
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


async def test_a_new_vm_does_not_avoid_the_node_from_which_its_namesake_was_evicted(cluster: Cluster) -> None:
    """The eviction was in incarnation 0, and the pod is of incarnation 1."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    assert len(_records(cluster)) == 1
    _replace_vm(cluster)
    await process.settle()
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    process.deliver()
    for _ in range(3):
        await process.step()
        process.deliver()
    [pod] = cluster.pods()
    assert pod["metadata"]["annotations"][names.INCARNATION] == "1"
    assert "affinity" not in pod["spec"]


async def test_failures_of_a_namesake_cause_no_backoff_for_a_new_vm(cluster: Cluster) -> None:
    """Its first migration starts at once."""
    process = await running(cluster)
    cluster.unfit = {"node-2"}
    cluster.migrate(unschedulableTimeoutSeconds=1)
    await process.settle(rounds=100)
    assert cluster.migration()["failureReason"] == "RolledBack"
    _replace_vm(cluster)
    await process.settle()
    cluster.unfit = set()
    began = cluster.now
    cluster.migrate("m-2", targetNode="node-1" if cluster.status()["nodeName"] == "node-2" else "node-2")
    await process.settle(patience=0.1)
    assert cluster.migration("m-2")["phase"] == "Succeeded"
    assert (cluster.now - began).total_seconds() < 5


# --- a source whose node is not ready ----------------------------------------------------------------------------

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
SILENT = "node node-1 is not ready (NodeStatusUnknown)"


@pytest.mark.parametrize("ready", ["Unknown", "False"])
async def test_a_vm_whose_node_is_not_ready_is_not_moved(cluster: Cluster, ready: str) -> None:
    """The migration reports it, and fails at its timeout with the VM untouched."""
    process = await running(cluster)
    before = cluster.status()
    cluster.report("node-1", ready)
    cluster.migrate(unschedulableTimeoutSeconds=60)
    process.deliver()
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    assert cluster.migration()["message"] == (
        f"VM vm-1 cannot be taken down: {SILENT}, so its pod's deletion would not finish "
        f"until node node-1 is back, tainted {OUT_OF_SERVICE} or deleted"
    )
    await process.settle(rounds=200)
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "SourceNodeNotReady")
    assert cluster.status() == before


@pytest.mark.parametrize("free", [lambda c: c.report("node-1", "True"), lambda c: c.taint("node-1", OUT_OF_SERVICE)])
async def test_a_vm_moves_once_its_node_is_ready_or_out_of_service(
    cluster: Cluster, free: Callable[[Cluster], None]
) -> None:
    """In the second case Kubernetes removes its pods."""
    process = await running(cluster)
    cluster.report("node-1", "Unknown")
    cluster.migrate()
    for _ in range(3):
        process.deliver()
        await process.step()
    free(cluster)
    await process.settle()
    assert (cluster.migration()["phase"], cluster.status()["nodeName"]) == ("Succeeded", "node-2")


async def test_the_message_names_the_source_and_its_node_that_stopped_reporting(cluster: Cluster) -> None:
    """The migration continues when the pod is deleted."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    [source] = [pod["metadata"]["name"] for pod in cluster.live()]
    cluster.report("node-1", "Unknown")
    for _ in range(3):
        cluster.pass_time(5)
        process.deliver()
        await process.step()
    assert cluster.migration()["message"] == (f"Pod {source} on node node-1 cannot end: {SILENT}")
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("block", "because"),
    [
        (
            lambda c, _: c.report("node-1", "Unknown"),
            f"cannot end: {SILENT}; VM vm-1 is down until node node-1 is back, tainted {OUT_OF_SERVICE} or deleted",
        ),
        (
            lambda c, pod: c.edit(PODS, f"default/{pod}", finalizers=["example.com/hold"]),
            "is held by its finalizers: example.com/hold; VM vm-1 is down until that pod is gone",
        ),
        (lambda _, __: None, "is still terminating; VM vm-1 is down until that pod is gone"),
    ],
)
async def test_a_migration_whose_source_is_not_deleted_names_the_cause(
    cluster: Cluster, block: Callable[[Cluster, str], None], because: str
) -> None:
    """Within ten seconds, and at its timeout; the VM runs once the cause is removed."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    [source] = [pod["metadata"]["name"] for pod in cluster.live()]
    block(cluster, source)
    for _ in range(10):
        cluster.pass_time(1)
        process.deliver()
        await process.step()
    assert cluster.migration()["phase"] == "Terminating"
    assert cluster.migration()["message"] == f"Pod {source} on node node-1 {because.partition(';')[0]}"
    for _ in range(100):
        cluster.pass_time(10)
        process.deliver()
        await process.step()
    assert cluster.migration()["failureReason"] == "CompletionTimeout"
    assert cluster.migration()["message"] == f"Pod {source} on node node-1 {because}"
    cluster.edit(PODS, f"default/{source}", finalizers=[])
    await process.settle()
    assert (cluster.status()["phase"], "migration" in cluster.status()) == ("Running", False)


async def test_a_refused_target_is_reported_with_the_servers_message(cluster: Cluster) -> None:
    """While the migration waits, and at its timeout."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    cluster.finish_deletions()
    quota = errors.ForbiddenError(403, "Forbidden", "exceeded quota")
    cluster.intercept = lambda method, _: Fault(method, "pods", quota, commit=False) if method == "create" else None
    for _ in range(5):
        process.deliver()
        await process.step()
    assert (cluster.migration()["phase"], cluster.migration()["message"]) == ("Scheduling", "exceeded quota")
    assert "migrationTargetPodUnschedulable" not in [event.reason for event in process.events]
    for _ in range(100):
        cluster.pass_time(10)
        process.deliver()
        await process.step()
    assert cluster.migration()["failureReason"] == "CompletionTimeout"
    assert cluster.migration()["message"] == (
        "The target pod could not be created in time (exceeded quota); VM vm-1 is down until a pod of it can be created"
    )
    cluster.intercept = None
    await process.settle()
    assert cluster.status()["phase"] == "Running"


# --- cancelling --------------------------------------------------------------------------------------------------


def _cancel(cluster: Cluster) -> None:
    document = cluster.objects[MIGRATIONS.plural, "default/m-1"]
    cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})


def _delete(cluster: Cluster) -> None:
    cluster.remove(MIGRATIONS, "default/m-1")


@pytest.mark.parametrize("give_up", [_cancel, _delete])
@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("spec", [{}, {"targetNode": "node-2"}])
async def test_cancelling_or_deleting_a_migration_releases_its_vm_in_any_phase(
    cluster: Cluster, give_up: Callable[[Cluster], None], steps: int, spec: dict[str, str]
) -> None:
    """The target fits on no node, so the VM runs on its old one."""
    process = await running(cluster)
    cluster.unfit = {"node-2"}
    cluster.migrate(unschedulableTimeoutSeconds=3600, completionTimeoutSeconds=3600, **spec)
    for _ in range(steps):
        process.deliver()
        await process.step()
        cluster.run_pods()
        cluster.finish_deletions()
    assert "migration" in cluster.status()
    began = cluster.now
    give_up(cluster)
    await process.settle(patience=0.1)
    assert (cluster.status()["phase"], cluster.status()["nodeName"]) == ("Running", "node-1")
    assert "migration" not in cluster.status()
    assert (cluster.now - began).total_seconds() < 10
    if give_up is _cancel:
        assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "Cancelled")
        reasons = [event.reason for event in process.events if "igration" in event.reason]
        assert reasons[-1] == "SuccessfulAbortMigration"
    assert cluster.violations == []


async def test_a_target_that_has_a_node_when_its_migration_is_cancelled_stays_there(cluster: Cluster) -> None:
    """Another start would gain nothing."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    cluster.finish_deletions()
    for _ in range(3):
        process.deliver()
        await process.step()
        cluster.bind_pods()
    _cancel(cluster)
    process.deliver()
    await process.step()
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "Cancelled")
    assert "node-2" in cluster.migration()["message"]
    await process.settle()
    assert (cluster.status()["nodeName"], cluster.status()["incarnation"]) == ("node-2", 1)


async def test_a_cancelled_migration_names_the_pod_that_its_vm_waits_for(cluster: Cluster) -> None:
    """Its claim ends when that pod is deleted."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    [source] = [pod["metadata"]["name"] for pod in cluster.live()]
    _cancel(cluster)
    for _ in range(3):
        process.deliver()
        await process.step()
    assert cluster.migration()["phase"] == "Terminating"
    assert cluster.migration()["message"] == f"Cancelled: VM vm-1 may start on any node, once pod {source} is gone"
    await process.settle()
    assert (cluster.migration()["failureReason"], cluster.status()["phase"]) == ("Cancelled", "Running")


async def test_a_cancel_after_the_target_runs_changes_nothing(cluster: Cluster) -> None:
    """The VM has moved."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    cluster.finish_deletions()
    while not any(pod["status"]["phase"] == "Running" for pod in cluster.pods()):
        process.deliver()
        await process.step()
        cluster.run_pods()
    _cancel(cluster)
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"
    assert cluster.status()["nodeName"] == "node-2"


# --- deleted VMs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True])
async def test_the_migrations_of_a_deleted_vm_are_deleted(cluster: Cluster, *, replaced: bool) -> None:
    """Finished and pending ones, and records of evictions; also if a namesake follows at once."""
    process = await running(cluster)
    cluster.migrate("done")
    await process.settle()
    cluster.pass_time(60)
    cluster.evict(cluster.status()["podName"])
    await process.settle()
    cluster.crowd({"node-1": "node-2", "node-2": "node-1"}[cluster.status()["nodeName"]])
    cluster.migrate("waits", unschedulableTimeoutSeconds=3600)
    process.deliver()
    await process.step()
    assert len(migrations(cluster)) == 3
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    if replaced:
        cluster.apply_vm()
    await process.settle()
    assert migrations(cluster) == []
    reasons = [d["status"].get("failureReason") for _, d, _ in cluster.log if d["metadata"]["name"] == "waits"]
    assert reasons[-1] == "VMDeleted"


async def test_a_new_process_deletes_the_migrations_of_deleted_vms(cluster: Cluster) -> None:
    """The VM was deleted while no process ran."""
    process = await running(cluster)
    cluster.migrate()
    await process.settle()
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    await Process(cluster).settle()
    assert migrations(cluster) == []


async def test_a_migration_without_a_vm_is_retained_for_an_hour(cluster: Cluster) -> None:
    """Whether a VM of that name was created since or not."""
    process = await running(cluster)
    cluster.migrate("typo", vm="vm-l")
    cluster.migrate("early", vm="vm-2")
    await process.settle()
    cluster.apply_vm("vm-2")
    await process.settle()
    cluster.pass_time(1700)
    await process.settle()
    assert [cluster.migration(name)["failureReason"] for name in ("typo", "early")] == ["VMNotFound", "VMNotFound"]
    cluster.pass_time(1900)
    await process.settle()
    assert migrations(cluster) == []


async def test_migrations_stay_while_only_the_cache_misses_their_vm(cluster: Cluster) -> None:
    """It is outside of this process's selection, or the cache lags."""
    process = await running(cluster)
    cluster.migrate()
    await process.settle()
    vm = process.caches.vms.get("default/vm-1")
    assert vm is not None
    process.caches.vms.replace([], str(cluster.revision))
    await process.migrations.reconcile("default/vm-1")
    assert migrations(cluster) == ["m-1"]


async def test_migrations_stay_while_the_cache_shows_the_previous_vm(cluster: Cluster) -> None:
    """They are about its namesake, which the cache does not have yet."""
    process = await running(cluster)
    old = process.caches.vms.get("default/vm-1")
    assert old is not None
    _replace_vm(cluster)
    await process.settle()
    cluster.migrate()
    await process.settle()
    process.caches.vms.replace([old], str(cluster.revision))
    await process.migrations.reconcile("default/vm-1")
    assert migrations(cluster) == ["m-1"]


# --- claims written by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim", [{}, {"name": "m-1"}, {"uid": "uid-9"}, {"name": "..", "uid": "uid-9"}, {"name": "a/b%", "uid": "uid-9"}]
)
async def test_a_claim_without_a_possible_migration_is_released(cluster: Cluster, claim: dict[str, str]) -> None:
    """Written by hand; no object can have such a name or UID."""
    process = await running(cluster)
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**cluster.status(), "migration": claim})
    await process.settle()
    assert "migration" not in cluster.status()
    assert cluster.status()["phase"] == "Running"
