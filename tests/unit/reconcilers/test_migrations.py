"""Migrations against the model of the API server: what goes well, what is refused, and all that can intervene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.kube.times import parse_timestamp
from controller.reconcilers.migration.slots import Limits
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process, wave


@pytest.fixture
def cluster() -> Cluster:
    """One VM, which will run on node-1."""
    made = Cluster()
    made.add_node("node-1")
    made.apply_vm()
    return made


async def running(cluster: Cluster, *, limits: Limits | None = None) -> Process:
    """A process whose VMs run on node-1, and a free node-2."""
    process = Process(cluster, limits=limits)
    await process.settle()
    cluster.pass_time(3600)
    cluster.add_node("node-2")
    return process


async def begin_to_migrate(cluster: Cluster, process: Process) -> None:
    """Ask for a migration, and let it come as far as it does while its source terminates."""
    cluster.migrate()
    for _ in range(4):
        process.deliver()
        await process.step()


def last_words(cluster: Cluster) -> tuple[str, str | None]:
    """The phase and the failure of the migration that changed last, which may be gone by now."""
    status = [document["status"] for plural, document, _ in cluster.log if plural == MIGRATIONS.plural][-1]
    return status["phase"], status.get("failureReason")


def migrations(cluster: Cluster) -> list[str]:
    """The names of those that are there."""
    return [
        document["metadata"]["name"] for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural
    ]


# --- moving ----------------------------------------------------------------------------------------------------


async def test_a_migration_moves_its_vm_to_another_node(cluster: Cluster) -> None:
    """One life ends, the next runs elsewhere, and both objects tell the same story."""
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


async def test_the_vm_is_seen_scheduling_on_its_way(cluster: Cluster) -> None:
    """From the claim on, whose write ends the life before, until the target runs."""
    process = await running(cluster)
    before = len(cluster.log)
    cluster.migrate()
    await process.settle()
    phases = [
        document["status"]["phase"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural
    ]
    assert list(dict.fromkeys(phases)) == ["Scheduling", "Running"]


async def test_the_claim_ends_the_life_before_in_one_write(cluster: Cluster) -> None:
    """Nobody sees a VM that is claimed and goes on as before."""
    process = await running(cluster)
    before = len(cluster.log)
    cluster.migrate()
    process.deliver()
    await process.migrations.reconcile("default/vm-1")
    [write] = [document["status"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural]
    assert (write["migration"]["name"], write["incarnation"], write["phase"]) == ("m-1", 1, "Scheduling")


async def test_a_claim_ends_no_life_whose_pod_may_still_be_made(cluster: Cluster) -> None:
    """A process that has just started does not know what the one before it sent."""
    await running(cluster)
    cluster.now = parse_timestamp(cluster.status()["conditions"][-1]["lastTransitionTime"]) or cluster.now
    process = Process(cluster)
    cluster.migrate()
    process.deliver()
    await process.migrations.reconcile("default/vm-1")
    assert (cluster.status()["migration"]["name"], cluster.status()["incarnation"]) == ("m-1", 0)
    await process.settle(rounds=60)
    assert (cluster.status()["incarnation"], cluster.migration()["phase"]) == (1, "Succeeded")


async def test_a_target_that_was_named_is_where_it_goes(cluster: Cluster) -> None:
    """The newest node would be chosen; the named one is."""
    process = await running(cluster)
    cluster.add_node("node-3")
    cluster.migrate(targetNode="node-2")
    await process.settle()
    assert cluster.status()["nodeName"] == "node-2"


async def test_a_settled_migration_costs_no_further_write(cluster: Cluster) -> None:
    """However often it is looked at."""
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
async def test_what_cannot_be_fails_at_once_and_leaves_the_vm_untouched(
    cluster: Cluster, prepare: Callable[[Cluster], Any], spec: dict[str, Any], reason: str
) -> None:
    """The reason is told; nothing was deleted."""
    process = await running(cluster)
    prepare(cluster)
    await process.settle()
    before = [pod["metadata"]["uid"] for pod in cluster.pods()]
    cluster.migrate(**spec)
    await process.settle()
    assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", reason)
    assert [pod["metadata"]["uid"] for pod in cluster.pods()] == before


async def test_with_no_room_now_it_waits_and_says_so_until_its_time_is_over(cluster: Cluster) -> None:
    """Strangers' pods count; the VM runs on all the while."""
    process = await running(cluster)
    before = [pod["metadata"]["uid"] for pod in cluster.pods()]
    made = cluster.crowd("node-2")
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
    ours = [pod["metadata"]["uid"] for pod in cluster.pods() if pod["metadata"]["uid"] != made["metadata"]["uid"]]
    assert ours == before


async def test_room_that_comes_free_is_used(cluster: Cluster) -> None:
    """Waiting is not failing."""
    process = await running(cluster)
    cluster.crowd("node-2")
    cluster.migrate()
    process.deliver()
    await process.step()
    cluster.remove(PODS, "other/stranger")
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


# --- the scheduler disagrees -------------------------------------------------------------------------------------


async def test_a_target_that_finds_no_node_is_rolled_back(cluster: Cluster) -> None:
    """After the timeout the VM comes back wherever it fits, its old node included."""
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
    """Which VMs were claimed, after each write of the whole history."""
    claimed: set[str] = set()
    history = []
    for plural, document, deleted in cluster.log:
        if plural == VIRTUAL_MACHINES.plural:
            name = document["metadata"]["name"]
            claimed = claimed | {name} if "migration" in document["status"] and not deleted else claimed - {name}
            history.append(claimed)
    return history


@pytest.mark.parametrize(("limits", "most"), [(Limits(), 2), (Limits(5, 0), 5), (Limits(0, 0), 12), (Limits(1, 2), 1)])
async def test_no_more_than_the_limits_move_at_once_and_all_move_in_the_end(limits: Limits, most: int) -> None:
    """Two away from one node by default, five in all; 0 means any number."""
    cluster, process = await wave(limits, 3, 12)
    await process.settle(rounds=300, patience=0.2)
    assert max(len(claimed) for claimed in _claimed(cluster)) == most
    phases = [cluster.migration(f"m-{number}")["phase"] for number in range(12)]
    assert phases == ["Succeeded"] * 12
    assert cluster.violations == []


async def test_who_waits_says_why(cluster: Cluster) -> None:
    """The third of one node names the limit."""
    cluster, process = await wave(Limits(), 3, 3)
    process.deliver()
    await process.step()
    assert cluster.migration("m-2")["message"] == "2 VMs are leaving node-0 already; at most 2 may at once"


async def test_priority_goes_before_age() -> None:
    """The drain's migration overtakes older ones that wait."""
    cluster, process = await wave(Limits(1, 1), 3, 4)
    cluster.remove(MIGRATIONS, "default/m-3")
    process.deliver()
    await process.step()
    cluster.migrate("m-late", vm="vm-3", priority="system-critical")
    await process.settle(rounds=300, patience=0.2)
    order = list(dict.fromkeys(name for claimed in _claimed(cluster) for name in claimed))
    assert order == ["vm-0", "vm-3", "vm-1", "vm-2"]


# --- failures and history ----------------------------------------------------------------------------------------


async def test_after_a_failure_the_same_vm_waits_twenty_seconds_then_forty(cluster: Cluster) -> None:
    """KubeVirt's backoff; success would end it."""
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


async def test_what_was_refused_makes_no_later_migration_wait(cluster: Cluster) -> None:
    """It never touched the VM, so the next one goes at once."""
    process = await running(cluster)
    for number in range(4):
        cluster.migrate(f"typo-{number}", targetNode="no-such-node")
        await process.settle()
    asked = cluster.now
    cluster.migrate()
    await process.settle(patience=0.1)
    assert cluster.migration()["phase"] == "Succeeded"
    assert (cluster.now - asked).total_seconds() < 1


async def test_the_last_five_finished_are_kept(cluster: Cluster) -> None:
    """Older ones go."""
    process = await running(cluster)
    for number in range(8):
        cluster.migrate(f"m-{number}")
        await process.settle()
        cluster.pass_time(60)
    kept = [
        document["metadata"]["name"]
        for (plural, _), document in cluster.objects.items()
        if plural == "virtualmachinemigrations"
    ]
    assert kept == [f"m-{number}" for number in range(3, 8)]


async def test_two_migrations_of_one_vm_in_one_instant_move_it_once(cluster: Cluster) -> None:
    """One has it, the other fails and says who."""
    process = await running(cluster)
    cluster.migrate("m-1")
    cluster.migrate("m-2")
    await process.settle()
    assert cluster.migration("m-1")["phase"] == "Succeeded"
    assert cluster.migration("m-2")["failureReason"] == "AnotherMigrationInProgress"
    assert cluster.status()["incarnation"] == 1


@pytest.mark.parametrize(("why", "reason"), [("quota", "CompletionTimeout"), ("invalid", "VMNotRunning")])
async def test_a_target_that_cannot_be_made_ends_its_migration_in_time(cluster: Cluster, why: str, reason: str) -> None:
    """The VM is not held, nor a turn kept from others, for as long as a quota or a spec says no."""
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


async def test_a_spec_that_turns_invalid_as_the_source_goes_ends_the_migration(cluster: Cluster) -> None:
    """Nothing can be made of it, so nothing holds the VM for the time when it can."""
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


async def test_a_deleted_migration_frees_a_vm_whose_spec_turned_invalid(cluster: Cluster) -> None:
    """The target can never be made, so its rollback is not waited for."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    assert cluster.status()["incarnation"] == 1
    cluster.apply_vm(cpu="plenty")
    cluster.remove(MIGRATIONS, "default/m-1")
    await process.settle()
    assert cluster.status()["phase"] == "Failed"
    assert "migration" not in cluster.status()


async def test_no_target_is_made_for_a_vm_that_was_deleted_unseen(cluster: Cluster) -> None:
    """The source took its time to go, and the VM went meanwhile; the watch of VMs is late."""
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
    assert last_words(cluster) == ("Failed", "VMDeleted")


async def test_a_vm_that_is_gone_has_not_lost_its_claim(cluster: Cluster) -> None:
    """A process whose list of VMs is from before the claim says what became of the VM, not of the claim."""
    process = await running(cluster)
    late = Process(cluster)
    await begin_to_migrate(cluster, process)
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.finish_deletions()
    late.deliver(withhold=VIRTUAL_MACHINES.plural)
    await late.step()
    await late.settle()
    assert last_words(cluster) == ("Failed", "VMDeleted")


# --- evictions ---------------------------------------------------------------------------------------------------


def _records(cluster: Cluster) -> list[Any]:
    return [document for (plural, _), document in cluster.objects.items() if plural == MIGRATIONS.plural]


async def test_an_eviction_is_told_as_the_migration_that_it_is(cluster: Cluster) -> None:
    """The pod's eviction is honoured; a record says from where to where."""
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


async def test_an_eviction_that_passed_between_two_looks_is_told_too(cluster: Cluster) -> None:
    """The condition dies with the pod; the watch's last word of it is enough."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]


async def test_the_replacement_would_rather_not_go_back(cluster: Cluster) -> None:
    """A wish, not a rule: with no other node it does."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    process.deliver()
    for _ in range(4):
        await process.step()
        process.deliver()
    [pod] = cluster.pods()
    [wish] = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}]


async def test_a_deleted_node_is_told_as_lost(cluster: Cluster) -> None:
    """Nobody evicts there, and the VM moves all the same."""
    process = await running(cluster)
    cluster.remove(NODES, "/node-1")
    await process.settle()
    [record] = _records(cluster)
    assert (record["spec"]["reason"], record["status"]["phase"]) == ("NodeLost", "Succeeded")
    assert cluster.status()["nodeName"] == "node-2"


async def test_an_eviction_before_the_pod_was_ever_published_is_told_to_its_end(cluster: Cluster) -> None:
    """The VM never said that it had this pod, so its next one belongs to the same life: that ends the record."""
    process = Process(cluster)
    await process.reconcile()
    cluster.evict(cluster.pods()[0]["metadata"]["name"])
    cluster.finish_deletions()
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]
    assert cluster.status()["phase"] == "Running"


async def test_a_record_ends_although_the_count_of_lives_was_taken_away(cluster: Cluster) -> None:
    """A status wiped after an eviction in a later life: what follows is the successor all the same."""
    process = await running(cluster)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    await process.settle()
    cluster.pass_time(3600)
    cluster.evict(cluster.status()["podName"])
    cluster.finish_deletions()
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {"phase": "Pending"})
    await process.settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]


async def test_a_pod_deleted_by_hand_is_no_eviction(cluster: Cluster) -> None:
    """It is replaced, and nothing is recorded."""
    process = await running(cluster)
    cluster.edit(PODS, "default/" + cluster.status()["podName"], deletionTimestamp="2026-01-15T12:00:00Z")
    await process.settle()
    assert _records(cluster) == []
    assert cluster.status()["incarnation"] == 1


async def test_a_crash_can_neither_record_twice_nor_carry_a_record_out(cluster: Cluster) -> None:
    """The record's name is the evicted pod's; a new process finds it and only tells."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    assert len(_records(cluster)) == 1
    await Process(cluster).settle()
    assert [record["status"]["phase"] for record in _records(cluster)] == ["Succeeded"]
    assert cluster.status()["incarnation"] == 1
    assert cluster.violations == []


async def test_a_record_that_a_user_made_is_refused_and_moves_nothing(cluster: Cluster) -> None:
    """recordOf is no way to migrate."""
    process = await running(cluster)
    cluster.migrate(recordOf="some-uid")
    await process.settle()
    assert cluster.migration()["failureReason"] == "InvalidRecord"
    assert cluster.status()["incarnation"] == 0


async def test_a_claim_that_only_the_cache_lacks_is_not_lost(cluster: Cluster) -> None:
    """A VM from before the claim is shown once more: a live read tells, and the migration goes on."""
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


def _make_anew(cluster: Cluster) -> None:
    """Delete the VM and its pods, and make another of its name."""
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    for pod in cluster.live():
        cluster.remove(PODS, f"default/{pod['metadata']['name']}")
    cluster.apply_vm()


async def test_a_migration_names_its_vm_by_uid_from_its_first_status_on(cluster: Cluster) -> None:
    """While it waits, and once it is done; what was refused because there is no VM names none."""
    process = await running(cluster)
    cluster.cordon("node-2")
    cluster.unfit = {"node-2"}
    cluster.migrate()
    cluster.migrate("m-2", vm="nobody")
    process.deliver()
    await process.step()
    assert cluster.migration()["vmUID"] == cluster.vm()["metadata"]["uid"]
    assert "vmUID" not in cluster.migration("m-2")


async def test_a_migration_that_waits_does_not_move_a_namesake(cluster: Cluster) -> None:
    """The VM that it was about is gone; the one that has its name now stays where it is."""
    process = await running(cluster)
    cluster.crowd("node-2")
    cluster.migrate(unschedulableTimeoutSeconds=3600)
    process.deliver()
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    _make_anew(cluster)
    for _ in range(6):
        process.deliver()
        await process.step()
        cluster.run_pods()
    cluster.remove(PODS, "other/stranger")
    await process.settle()
    assert last_words(cluster) == ("Failed", "VMDeleted")
    assert (cluster.status()["phase"], cluster.status()["incarnation"]) == ("Running", 0)


async def test_a_cache_that_shows_the_vm_before_fails_no_migration_of_its_namesake(cluster: Cluster) -> None:
    """The process before us knew the new VM already; ours is told of it later."""
    process = await running(cluster)
    _make_anew(cluster)
    await Process(cluster).settle()
    move = cluster.migrate()
    uid = cluster.vm()["metadata"]["uid"]
    cluster.set_status(MIGRATIONS, "default/m-1", {**move["status"], "vmUID": uid})
    process.deliver(withhold=VIRTUAL_MACHINES.plural)
    await process.step()
    assert cluster.migration()["phase"] == "Pending"
    await process.settle()
    assert cluster.migration()["phase"] == "Succeeded"


async def test_a_new_vm_has_no_wish_about_nodes_because_of_its_namesake(cluster: Cluster) -> None:
    """Another VM was evicted from node-1 in its life 0."""
    process = await running(cluster)
    cluster.evict(cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    assert len(_records(cluster)) == 1
    _make_anew(cluster)
    await process.settle()
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    process.deliver()
    for _ in range(3):
        await process.step()
        process.deliver()
    [pod] = cluster.pods()
    assert pod["metadata"]["annotations"][names.INCARNATION] == "1"
    assert "affinity" not in pod["spec"]


async def test_a_new_vm_does_not_wait_for_the_failures_of_its_namesake(cluster: Cluster) -> None:
    """Its first migration begins at once."""
    process = await running(cluster)
    cluster.unfit = {"node-2"}
    cluster.migrate(unschedulableTimeoutSeconds=1)
    await process.settle(rounds=100)
    assert cluster.migration()["failureReason"] == "RolledBack"
    _make_anew(cluster)
    await process.settle()
    cluster.unfit = set()
    asked = cluster.now
    cluster.migrate("m-2", targetNode="node-1" if cluster.status()["nodeName"] == "node-2" else "node-2")
    await process.settle(patience=0.1)
    assert cluster.migration("m-2")["phase"] == "Succeeded"
    assert (cluster.now - asked).total_seconds() < 5


# --- a source whose node is not ready ----------------------------------------------------------------------------

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
SILENT = "node node-1 is not ready (NodeStatusUnknown)"


@pytest.mark.parametrize("ready", ["Unknown", "False"])
async def test_a_vm_whose_node_is_not_ready_is_not_taken_down(cluster: Cluster, ready: str) -> None:
    """Nobody would finish that. It says so, and in the end it fails with the VM untouched."""
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
async def test_a_node_that_is_back_or_out_of_service_lets_its_vm_go(
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


async def test_a_node_that_falls_silent_under_a_move_is_named_with_the_pod_that_it_holds(cluster: Cluster) -> None:
    """The migration goes on when the pod does."""
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
    ("hold", "because"),
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
async def test_a_migration_whose_source_does_not_go_ends_with_the_truth(
    cluster: Cluster, hold: Callable[[Cluster, str], None], because: str
) -> None:
    """It says what holds the pod within ten seconds, and in the end until when the VM is down; then that comes true."""
    process = await running(cluster)
    await begin_to_migrate(cluster, process)
    [source] = [pod["metadata"]["name"] for pod in cluster.live()]
    hold(cluster, source)
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


async def test_a_target_that_cannot_be_made_is_told_in_the_words_of_who_refuses_it(cluster: Cluster) -> None:
    """While the migration waits, and at its end, which promises nothing."""
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
async def test_a_vm_is_given_back_wherever_its_migration_was(
    cluster: Cluster, give_up: Callable[[Cluster], None], steps: int, spec: dict[str, str]
) -> None:
    """Cancelling and deleting mean the same: no node takes the target, and the VM runs where it was."""
    process = await running(cluster)
    cluster.unfit = {"node-2"}
    cluster.migrate(unschedulableTimeoutSeconds=3600, completionTimeoutSeconds=3600, **spec)
    for _ in range(steps):
        process.deliver()
        await process.step()
        cluster.run_pods()
        cluster.finish_deletions()
    assert "migration" in cluster.status()
    asked = cluster.now
    give_up(cluster)
    await process.settle(patience=0.1)
    assert (cluster.status()["phase"], cluster.status()["nodeName"]) == ("Running", "node-1")
    assert "migration" not in cluster.status()
    assert (cluster.now - asked).total_seconds() < 10
    if give_up is _cancel:
        assert (cluster.migration()["phase"], cluster.migration()["failureReason"]) == ("Failed", "Cancelled")
        reasons = [event.reason for event in process.events if "igration" in event.reason]
        assert reasons[-1] == "SuccessfulAbortMigration"
    assert cluster.violations == []


async def test_a_target_that_has_a_node_when_its_migration_is_cancelled_stays_there(cluster: Cluster) -> None:
    """Nothing is gained by starting the VM once more."""
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


async def test_a_cancelled_migration_says_what_its_vm_waits_for(cluster: Cluster) -> None:
    """Its source does not go; the claim ends when it does."""
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


async def test_a_cancel_that_comes_too_late_changes_nothing(cluster: Cluster) -> None:
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


# --- VMs that are gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anew", [False, True])
async def test_the_migrations_of_a_vm_that_is_gone_go_with_it(cluster: Cluster, *, anew: bool) -> None:
    """Those that had ended, one that waits, and the records of its evictions; also if another has its name at once."""
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
    if anew:
        cluster.apply_vm()
    await process.settle()
    assert migrations(cluster) == []
    told = [d["status"].get("failureReason") for _, d, _ in cluster.log if d["metadata"]["name"] == "waits"]
    assert told[-1] == "VMDeleted"


async def test_a_new_process_removes_what_the_one_before_left_of_vms_that_are_gone(cluster: Cluster) -> None:
    """Nobody was there when the VM went."""
    process = await running(cluster)
    cluster.migrate()
    await process.settle()
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    await Process(cluster).settle()
    assert migrations(cluster) == []


async def test_what_was_asked_of_a_vm_that_never_was_can_be_read_for_an_hour(cluster: Cluster) -> None:
    """Then it goes, whether a VM of that name came or not."""
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
    """It is there, but not among those that this process serves, or not yet."""
    process = await running(cluster)
    cluster.migrate()
    await process.settle()
    vm = process.caches.vms.get("default/vm-1")
    assert vm is not None
    process.caches.vms.replace([], str(cluster.revision))
    await process.migrations.reconcile("default/vm-1")
    assert migrations(cluster) == ["m-1"]


async def test_migrations_stay_while_the_cache_shows_the_vm_before_theirs(cluster: Cluster) -> None:
    """They are about the VM that has the name now, of which the cache knows nothing yet."""
    process = await running(cluster)
    old = process.caches.vms.get("default/vm-1")
    assert old is not None
    _make_anew(cluster)
    await process.settle()
    cluster.migrate()
    await process.settle()
    process.caches.vms.replace([old], str(cluster.revision))
    await process.migrations.reconcile("default/vm-1")
    assert migrations(cluster) == ["m-1"]


# --- claims that somebody wrote ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim", [{}, {"name": "m-1"}, {"uid": "uid-9"}, {"name": "..", "uid": "uid-9"}, {"name": "a/b%", "uid": "uid-9"}]
)
async def test_a_claim_that_can_be_no_migrations_is_released(cluster: Cluster, claim: dict[str, str]) -> None:
    """It names nobody whom anyone could ask; the VM is not bound by it for ever."""
    process = await running(cluster)
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**cluster.status(), "migration": claim})
    await process.settle()
    assert "migration" not in cluster.status()
    assert cluster.status()["phase"] == "Running"
