"""The promises of docs/design.md about a VM, each with the faults that could break it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.kube.verbs import CREATE_DEADLINE
from controller.reconcilers.vm.expectations import SETTLED
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process, running_alone

LOST = errors.TransportError("the reply was lost")


# --- 1. at most one live pod -----------------------------------------------------------------------------------


async def test_the_model_reports_a_second_live_pod(cluster: Cluster) -> None:
    """Otherwise the tests of this promise could not fail; a pod that has ended does not count."""
    await running_alone(cluster)
    [first] = cluster.live()
    ended = {**first, "metadata": {**first["metadata"], "name": "ended"}, "status": {"phase": "Failed"}}
    cluster.add(PODS.plural, ended)
    assert cluster.violations == []
    cluster.add(PODS.plural, {**first, "metadata": {**first["metadata"], "name": "second"}})
    names = f"second, {first['metadata']['name']}"
    assert cluster.violations == [f"revision {cluster.revision}: VM vm-1 has 2 live pods: {names}"]
    cluster.remove(PODS, "default/second")
    cluster.edit(PODS, f"default/{first['metadata']['name']}", annotations={})
    assert len(cluster.violations) == 1


async def test_the_model_reports_a_number_that_a_client_forgets_and_not_a_users_edit(cluster: Cluster) -> None:
    """A test edits a status as a user does."""
    await running_alone(cluster)
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**cluster.status(), "incarnation": 7})
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**cluster.status(), "incarnation": 5})
    assert cluster.violations == []
    await cluster.merge_patch(
        VIRTUAL_MACHINES, "vm-1", {"status": {"incarnation": 3}}, namespace="default", subresource="status"
    )
    assert "VM vm-1 forgets number 5: it remembers 3" in cluster.violations[0]


async def test_a_create_whose_reply_was_lost_is_adopted_not_repeated(cluster: Cluster) -> None:
    """The second create collides with the first, and its pod is adopted."""
    cluster.faults.append(Fault("create", "pods", LOST))
    process = Process(cluster)
    await process.settle()
    assert len(cluster.pods()) == 1
    assert cluster.writes.count("create pods") == 1
    assert cluster.violations == []


async def test_a_create_that_commits_late_never_meets_a_successor(cluster: Cluster) -> None:
    """While an unknown create may still commit, the incarnation stays, so its pod is the current one."""
    process = await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    # The replacement's first create hangs on the server, the second creates the pod, which is deleted at once.
    process.deliver()
    await process.reconcile()
    process.deliver()
    cluster.faults.append(Fault("create", "pods", LOST, late=CREATE_DEADLINE))
    await process.reconcile()
    await process.reconcile()
    second = cluster.status()["podName"]
    cluster.run_pods()
    process.deliver()
    await process.reconcile()
    cluster.remove(PODS, f"default/{second}")
    await process.settle()
    assert cluster.violations == []
    assert len(cluster.live()) == 1
    assert cluster.status()["podName"] == cluster.live()[0]["metadata"]["name"]


async def test_the_expectation_of_an_unknown_create_lasts_two_deadlines(cluster: Cluster) -> None:
    """Not less, and not for ever."""
    process = await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    process.deliver()
    cluster.faults.append(Fault("create", "pods", LOST))
    await process.reconcile()
    cluster.run_pods()
    process.deliver()
    await process.reconcile()
    process.deliver()
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    process.deliver()
    before = cluster.status()["incarnation"]
    cluster.pass_time(SETTLED - 1)
    await process.reconcile()
    assert cluster.status()["incarnation"] == before
    cluster.pass_time(1)
    process.deliver()
    await process.reconcile()
    assert cluster.status()["incarnation"] == before + 1


async def test_nothing_is_decided_until_the_pod_cache_shows_our_own_write(cluster: Cluster) -> None:
    """No request is sent for a VM whose last write the caches do not show."""
    process = Process(cluster)
    await process.reconcile()
    before = tuple(cluster.requests)
    assert before[-1] == "create pods"
    cluster.run_pods()
    process.deliver(withhold="pods")
    for _ in range(5):
        await process.reconcile()
    assert tuple(cluster.requests) == before


async def test_a_predecessor_that_no_cache_shows_is_found_before_the_create(cluster: Cluster) -> None:
    """Another process moved the incarnation, and the old pod had lost its labels."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    cluster.edit(PODS, f"default/{pod}", labels={})
    moved = {**cluster.status(), "phase": "Scheduling", "incarnation": 1}
    del moved["podUID"]
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", moved)
    await process.settle()
    assert cluster.violations == []
    assert [found["metadata"]["name"] for found in cluster.live()] == [cluster.status()["podName"]]
    assert cluster.status()["incarnation"] == 1


async def test_a_stale_worker_cannot_undo_anothers_status(cluster: Cluster) -> None:
    """Every status write has the version that was decided on as its precondition."""
    process = await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    process.deliver()
    moved = {**cluster.status(), "phase": "Scheduling", "incarnation": 5}
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", moved)
    assert isinstance(await process.reconcile(), errors.ConflictError)
    assert cluster.status() == moved


async def test_a_create_of_the_previous_process_never_meets_a_successor(cluster: Cluster) -> None:
    """After a restart the incarnation of a young VM stays until such a create has settled."""
    cluster.faults.append(Fault("create", "pods", asyncio.CancelledError(), late=CREATE_DEADLINE))
    with suppress(asyncio.CancelledError):
        await Process(cluster).reconcile()
    process = Process(cluster)
    await process.reconcile()
    cluster.run_pods()
    process.deliver()
    await process.reconcile()
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    await process.settle()
    cluster.pass_time(CREATE_DEADLINE)
    await process.settle()
    assert cluster.violations == []
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


@pytest.mark.parametrize("waited", ["stopped", "refused", "unplaced"])
async def test_a_create_of_the_previous_process_for_a_vm_that_waited_long_never_meets_a_successor(
    cluster: Cluster, waited: str
) -> None:
    """Its last transition is an hour old: it was stopped, its pod was refused, or seen and not placed."""
    process = await running_alone(cluster)
    if waited == "stopped":
        cluster.apply_vm(running=False)
        await process.settle()
    else:
        cluster.remove(PODS, "default/" + cluster.status()["podName"])
        process.deliver()
        await process.reconcile()
    cluster.pass_time(3600)
    cluster.apply_vm(running=True)
    process.deliver()
    outcome = LOST if waited == "unplaced" else asyncio.CancelledError()
    cluster.faults.append(Fault("create", "pods", outcome, late=CREATE_DEADLINE))
    with suppress(asyncio.CancelledError):
        await process.reconcile()
    for _ in range(2 if waited == "unplaced" else 0):
        await process.reconcile()
        process.deliver()
    process = Process(cluster)
    for _ in range(2):
        await process.reconcile()
        process.deliver()
    cluster.remove(PODS, "default/" + cluster.pods()[0]["metadata"]["name"])
    await process.settle()
    cluster.pass_time(CREATE_DEADLINE)
    await process.settle()
    assert cluster.violations == []
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


async def test_a_restart_expects_no_create_for_a_vm_that_was_settled_long_ago(cluster: Cluster) -> None:
    """Its missing pod is replaced at once."""
    await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    before = cluster.now
    process = Process(cluster)
    await process.settle()
    assert (cluster.status()["phase"], cluster.status()["incarnation"]) == ("Running", 1)
    assert (cluster.now - before).total_seconds() < 2


async def test_a_lagging_vm_cache_moves_no_incarnation_twice(cluster: Cluster) -> None:
    """The write is guarded, and the process waits until the cache shows it."""
    process = await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    process.deliver()
    await process.reconcile()
    process.deliver(withhold="virtualmachines")
    for _ in range(5):
        await process.reconcile()
    assert cluster.status()["incarnation"] == 1


async def test_a_pod_without_labels_gets_them_back_and_no_second_pod_is_created(cluster: Cluster) -> None:
    """A live read of its recorded name finds it."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    cluster.edit(PODS, f"default/{pod}", labels={})
    await process.settle()
    assert cluster.violations == []
    assert [found["metadata"]["name"] for found in cluster.pods()] == [pod]
    assert cluster.pods()[0]["metadata"]["labels"][names.VM_LABEL] == "vm-1"


async def test_a_pod_that_lost_its_labels_and_its_creates_reply_is_adopted_with_its_labels(cluster: Cluster) -> None:
    """No second pod is created."""
    process = Process(cluster)
    cluster.faults.append(Fault("create", "pods", LOST))
    await process.reconcile()
    cluster.edit(PODS, "default/" + cluster.pods()[0]["metadata"]["name"], labels={})
    await process.settle()
    assert cluster.violations == []
    assert len(cluster.pods()) == 1


async def test_a_live_read_shows_the_predecessor_deleted_before_its_successor_is_created(cluster: Cluster) -> None:
    """It terminates slowly, and without labels no cache shows it."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    cluster.edit(PODS, f"default/{pod}", deletionTimestamp="2026-01-15T11:00:00Z")
    process.deliver()
    await process.reconcile()
    cluster.edit(PODS, f"default/{pod}", labels={})
    for _ in range(5):
        process.deliver()
        await process.reconcile()
    assert len(cluster.pods()) == 1
    assert cluster.violations == []


async def test_a_wiped_status_does_not_restart_the_incarnation(cluster: Cluster) -> None:
    """The pod's annotation has the incarnation."""
    process = await running_alone(cluster)
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    await process.settle()
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {"phase": "Pending"})
    await process.settle()
    assert cluster.status()["incarnation"] == 1
    assert len(cluster.pods()) == 1
    assert cluster.violations == []


async def test_a_recreated_vm_waits_for_the_pod_of_its_namesake(cluster: Cluster) -> None:
    """The old UID's pod is deleted before the new VM gets its own."""
    process = await running_alone(cluster)
    old_uid = cluster.vm()["metadata"]["uid"]
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm()
    process.deliver()
    await process.reconcile()
    assert len(cluster.live()) == 1, "the old pod is terminating, and nothing was created yet"
    await process.settle()
    assert cluster.live(old_uid) == []
    assert len(cluster.live(cluster.vm()["metadata"]["uid"])) == 1


@pytest.mark.parametrize("spec", [{"running": True}, {"running": False}, {"cpu": "plenty"}], ids=str)
async def test_a_namesakes_pod_that_is_created_late_is_deleted(cluster: Cluster, spec: dict[str, Any]) -> None:
    """Whether the VM runs, is stopped, or is invalid."""
    cluster.faults.append(Fault("create", "pods", LOST, late=CREATE_DEADLINE))
    process = Process(cluster)
    await process.reconcile()
    old_uid = cluster.vm()["metadata"]["uid"]
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.apply_vm(**spec)
    process.deliver()
    for _ in range(4):
        await process.reconcile()
        process.deliver()
    cluster.pass_time(CREATE_DEADLINE)
    await process.settle()
    assert cluster.live(old_uid) == []


async def test_a_pod_without_an_incarnation_is_deleted_although_the_spec_is_invalid(cluster: Cluster) -> None:
    """A Failed VM has its current pod, or none."""
    process = await running_alone(cluster)
    cluster.edit(PODS, "default/" + cluster.status()["podName"], annotations={})
    cluster.apply_vm(cpu="plenty")
    await process.settle()
    assert (cluster.status()["phase"], cluster.live()) == ("Failed", [])


async def test_a_pod_without_labels_is_found_although_the_spec_is_invalid(cluster: Cluster) -> None:
    """A VM whose pod runs does not report that it has none."""
    process = await running_alone(cluster)
    cluster.apply_vm(cpu="plenty")
    cluster.edit(PODS, "default/" + cluster.status()["podName"], labels={})
    await process.settle()
    assert (cluster.status()["phase"], len(cluster.live())) == ("Running", 1)


async def test_the_next_pod_starts_its_history_anew_after_the_recorded_uid_was_removed(cluster: Cluster) -> None:
    """It has the same incarnation."""
    process = await running_alone(cluster)
    known = {key: value for key, value in cluster.status().items() if key != "podUID"}
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", known)
    cluster.cordon("node-1")
    await process.settle()
    phase, history = cluster.status()["phase"], cluster.status()["conditions"]
    assert (phase, history[-1]["type"]) == ("Scheduling", "PhaseScheduling")


async def test_of_two_processes_acting_at_once_one_pod_counts(cluster: Cluster) -> None:
    """The guarded status names it; any other is deleted by the next reconcile."""
    one, other = Process(cluster), Process(cluster)
    await one.settle()
    await other.settle()
    cluster.remove(PODS, "default/" + cluster.status()["podName"])
    for process in (one, other, one, other, one, other):
        process.deliver()
        await process.reconcile()
    await one.settle()
    await other.settle()
    await one.settle()
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


# --- 2. stable, 3. level-triggered -----------------------------------------------------------------------------


async def test_a_settled_vm_costs_no_further_write(cluster: Cluster) -> None:
    """Neither by this process nor by the next."""
    process = await running_alone(cluster)
    before = list(cluster.writes)
    for _ in range(10):
        await process.reconcile()
    await Process(cluster).settle()
    assert cluster.writes == before


@pytest.mark.parametrize(
    "scenario",
    ["create", "replace", "stop", "start", "delete", "recreate", "fail", "node", "migrate", "migrate nowhere"],
)
async def test_a_crash_between_any_two_writes_changes_nothing_in_the_end(scenario: str) -> None:
    """For every k the process dies at write k, before or after its commit, and a new one settles to the same result."""
    undisturbed = await _play(scenario, crash_at=None)
    for k in range(1, len(undisturbed.writes) + 1):
        for committed in (True, False):
            disturbed = await _play(scenario, crash_at=k, committed=committed)
            where = f"crash at write {k} ({'after' if committed else 'before'} its commit)"
            assert disturbed.violations == [], where
            assert _outline(disturbed) == _outline(undisturbed), where


async def _play(scenario: str, *, crash_at: int | None, committed: bool = True) -> Cluster:
    """Play a scenario with or without a crash, and let everything settle."""
    cluster = Cluster()
    cluster.add_node()
    process = Process(cluster)
    cluster.apply_vm()
    if scenario != "create":
        await process.settle()
        cluster.pass_time(3600)
    if scenario == "start":
        cluster.apply_vm(running=False)
        await process.settle()
        cluster.pass_time(3600)
    _begin(scenario, cluster)
    cluster.writes.clear()
    if crash_at is None:
        await process.settle(rounds=120)
        return cluster
    crash = _CrashAt(cluster, crash_at, committed=committed)
    with suppress(asyncio.CancelledError):
        await process.settle(rounds=120)
    assert crash.happened, "an undisturbed run makes as many writes"
    await Process(cluster).settle(rounds=120)
    return cluster


def _begin(scenario: str, cluster: Cluster) -> None:
    match scenario:
        case "replace":
            cluster.remove(PODS, "default/" + cluster.status()["podName"])
        case "stop":
            cluster.apply_vm(running=False)
        case "start":
            cluster.apply_vm(running=True)
        case "delete":
            cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
        case "recreate":
            cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
            cluster.apply_vm()
        case "fail":
            pod = cluster.status()["podName"]
            cluster.set_status(PODS, f"default/{pod}", {"phase": "Failed"})
        case "node":
            cluster.add_node("node-2")
            cluster.remove(NODES, "/node-1")
        case "migrate":
            cluster.add_node("node-2")
            cluster.migrate()
        case "migrate nowhere":
            # The scheduler sees what preflight did not.
            cluster.add_node("node-2")
            cluster.unfit = {"node-2"}
            cluster.migrate(unschedulableTimeoutSeconds=10)


class _CrashAt:
    """The process dies at its k-th write: before it reaches the cluster, or after it took effect."""

    def __init__(self, cluster: Cluster, k: int, *, committed: bool) -> None:
        self._cluster = cluster
        self._left = k
        self._committed = committed
        self.happened = False
        cluster.intercept = self._intercept

    def _intercept(self, method: str, plural: str) -> Fault | None:
        self._left -= 1
        if self._left:
            return None
        self.happened = True
        self._cluster.intercept = None
        # No `except` of the product catches this one: nothing after it is done by this process.
        return Fault(method, plural, asyncio.CancelledError(), commit=self._committed)


def _outline(cluster: Cluster) -> dict[str, object]:
    """Return what must be the same with and without a crash: all but names, UIDs, times and versions."""
    vms = {
        document["metadata"]["name"]: (
            document["status"]["phase"],
            [found["type"] for found in document["status"].get("conditions", ())],
            [(found["type"], found["status"]) for found in document["status"].get("conditions", ())][:1],
        )
        for (plural, _), document in cluster.objects.items()
        if plural == VIRTUAL_MACHINES.plural
    }
    migrations = [
        (document["status"]["phase"], document["status"].get("failureReason"))
        for (plural, _), document in cluster.objects.items()
        if plural == MIGRATIONS.plural
    ]
    return {"vms": vms, "pods": sorted(pod["status"]["phase"] for pod in cluster.pods()), "migrations": migrations}


# --- 4. derived status -----------------------------------------------------------------------------------------


async def test_an_edited_phase_removes_no_transition_from_the_history(cluster: Cluster) -> None:
    """New steps follow from the history, not from the phase."""
    cluster.apply_vm(running=False)
    process = Process(cluster)
    await process.settle()
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**cluster.status(), "phase": "Running"})
    cluster.apply_vm(running=True)
    await process.settle()
    types = [found["type"] for found in cluster.status()["conditions"]]
    assert types == ["Ready", *("Phase" + it for it in ("Pending", "Stopped", "Scheduling", "Scheduled", "Running"))]


async def test_a_refused_start_adds_pending_to_the_history(cluster: Cluster) -> None:
    """The history ends with the published phase."""
    cluster.apply_vm(running=False)
    process = Process(cluster)
    await process.settle()
    cluster.apply_vm(running=True)
    cluster.faults += [Fault("create", "pods", errors.ForbiddenError(403, "Forbidden", "quota"), commit=False)] * 4
    for _ in range(4):
        process.deliver()
        await process.reconcile()
    assert (cluster.status()["phase"], cluster.status()["conditions"][-1]["type"]) == ("Pending", "PhasePending")


async def test_a_stop_edited_into_the_status_is_added_to_the_history(cluster: Cluster) -> None:
    """The phase is right by chance."""
    cluster.apply_vm(running=False)
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {"phase": "Stopped"})
    await Process(cluster).settle()
    assert cluster.status()["conditions"][-1]["type"] == "PhaseStopped"


async def test_a_phase_edited_while_its_pod_runs_is_corrected_without_a_transition(cluster: Cluster) -> None:
    """The pod did not change."""
    process = await running_alone(cluster)
    before = cluster.status()
    cluster.set_status(VIRTUAL_MACHINES, "default/vm-1", {**before, "phase": "Scheduling"})
    await process.settle()
    assert cluster.status() == before


# --- 5. foreign objects ----------------------------------------------------------------------------------------


async def test_a_foreign_pod_with_our_name_is_not_touched_and_the_vm_reports_it(cluster: Cluster) -> None:
    """The condition is on that VM; other VMs are not affected."""
    uid = cluster.vm()["metadata"]["uid"]
    name = names.pod_name("vm-1", uid, 0)
    foreign = {"metadata": {"name": name, "namespace": "default"}, "spec": {}, "status": {"phase": "Running"}}
    cluster.add(PODS.plural, foreign)
    cluster.apply_vm("vm-2")
    process = Process(cluster)
    for _ in range(6):
        process.deliver()
        for key in ("default/vm-1", "default/vm-2"):
            await process.reconcile(key)
        cluster.run_pods()
    ready = cluster.status()["conditions"][0]
    assert (ready["reason"], cluster.status()["phase"]) == ("FailedCreate", "Pending")
    assert f"pod {name} exists and does not belong to this VM" in ready["message"]
    assert cluster.status("vm-2")["phase"] == "Running"
    assert ("delete pods" in cluster.writes) is False


async def test_a_pod_without_its_owner_reference_is_released_not_deleted(cluster: Cluster) -> None:
    """Without the ownerRef it is a foreign pod: the VM gets another, the old one stays."""
    process = await running_alone(cluster)
    released = cluster.status()["podName"]
    cluster.edit(PODS, f"default/{released}", ownerReferences=[])
    await process.settle()
    assert cluster.status()["incarnation"] == 1
    assert f"default/{released}" in {f"default/{pod['metadata']['name']}" for pod in cluster.pods()}


async def test_a_pod_that_changed_owner_since_it_was_cached_is_not_deleted(cluster: Cluster) -> None:
    """The delete has the version that was decided on as its precondition."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    cluster.edit(PODS, f"default/{pod}", ownerReferences=[])
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    process.deliver(withhold="pods")
    await process.reconcile()
    assert "deletionTimestamp" not in cluster.pods()[0]["metadata"]


async def test_a_vm_that_only_the_cache_misses_keeps_its_pod(cluster: Cluster) -> None:
    """A live read comes before the deletion."""
    process = await running_alone(cluster)
    process.caches.vms.replace([], "1")
    await process.reconcile()
    assert len(cluster.live()) == 1
    assert "deletionTimestamp" not in cluster.live()[0]["metadata"]


async def test_a_vm_whose_deletion_the_cache_has_not_shown_gets_no_pod(cluster: Cluster) -> None:
    """A live read finds it deleted; the garbage collector would delete the pod."""
    process = await running_alone(cluster)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    process.deliver()
    await process.reconcile()
    process.deliver()
    assert cluster.status()["incarnation"] == 1
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    before = cluster.writes.count("create pods")
    for _ in range(10):
        await process.reconcile()
        cluster.run_pods()
        process.deliver(withhold=VIRTUAL_MACHINES.plural)
        await process.reconcile()
        for pod in cluster.pods():
            cluster.remove(PODS, f"default/{pod['metadata']['name']}")
        process.deliver(withhold=VIRTUAL_MACHINES.plural)
        cluster.pass_time(30)

    assert cluster.writes.count("create pods") == before


async def test_a_node_that_only_the_cache_misses_loses_no_pod(cluster: Cluster) -> None:
    """No pod of an existing node is force-deleted."""
    process = await running_alone(cluster)
    process.nodes.replace([], "1")
    await process.reconcile()
    assert len(cluster.live()) == 1
    assert "deletionTimestamp" not in cluster.live()[0]["metadata"]


async def test_a_node_that_only_the_cache_misses_is_not_recorded_as_lost(cluster: Cluster) -> None:
    """The cache of pods may show a new node first."""
    process = await running_alone(cluster)
    process.nodes.replace([], "1")
    await process.reconcile()
    assert [plural for plural, _ in cluster.objects if plural == MIGRATIONS.plural] == []


# --- 6. bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (errors.ForbiddenError(403, "Forbidden", "exceeded quota: pods"), "FailedCreate"),
        (errors.InvalidError(422, "Invalid", "spec.nodeSelector: Invalid value"), "FailedCreate"),
    ],
)
async def test_a_refused_pod_is_reported_once_and_created_when_it_is_admitted(
    cluster: Cluster, refusal: errors.StatusError, reason: str
) -> None:
    """One Event and one status write for any number of retries."""
    process = Process(cluster)
    cluster.faults += [Fault("create", "pods", refusal, commit=False)] * 9
    for _ in range(8):
        process.deliver()
        await process.reconcile()
    assert cluster.status()["conditions"][0]["reason"] == reason
    assert cluster.writes == ["patch virtualmachines"]
    assert [event.reason for event in process.events] == ["FailedCreate"]
    cluster.faults.clear()
    await process.settle()
    assert cluster.status()["phase"] == "Running"


# --- the echo of our own write ---------------------------------------------------------------------------------


async def published_running(cluster: Cluster) -> Process:
    """Return a process that has just published that the VM runs, and has not seen that write."""
    process = Process(cluster)
    for _ in range(2):
        process.deliver()
        await process.reconcile()
        cluster.run_pods()
    assert cluster.status()["phase"] == "Running"
    return process


async def test_a_change_that_arrives_with_our_own_write_is_decided(cluster: Cluster) -> None:
    """Only our own write needs no decision."""
    process = await published_running(cluster)
    cluster.apply_vm(running=False)
    process.deliver()
    await process.reconcile()
    assert [pod for pod in cluster.live() if "deletionTimestamp" not in pod["metadata"]] == []


async def test_a_pod_deleted_before_our_own_write_arrives_is_noticed(cluster: Cluster) -> None:
    """The version is ours, but the pods have changed."""
    process = await published_running(cluster)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    process.deliver()
    await process.reconcile()
    assert cluster.status()["conditions"][0]["reason"] == "PodNotExists"
