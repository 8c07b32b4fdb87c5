"""The plan of `decide` for every state of a VM and its pods."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VMResources, VMStatus
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import (
    Circumstances,
    ConfirmNodeGone,
    ConfirmPodGone,
    ConfirmVMGone,
    CreatePod,
    DeletePod,
    PatchPod,
    Plan,
    View,
    WriteStatus,
)
from controller.kube.meta import Condition
from tests.unit.domain.builders import (
    NOW,
    POLICY,
    condition,
    history,
    plan_for,
    pod,
    published,
    running,
    settled,
    vm,
)

# --- the first incarnation -------------------------------------------------------------------------------------


def test_a_new_vm_gets_its_first_pod_with_no_status_write_before_it() -> None:
    """The name is deterministic, so one create is enough."""
    machine = vm()
    [create] = plan_for(machine).actions
    assert isinstance(create, CreatePod)
    assert create.name == names.pod_name("vm-1", "uid-1", 0)
    assert create.predecessor is None


def test_a_refused_create_is_published_before_it_is_retried() -> None:
    """Ready reports the refusal; the next plan retries."""
    machine = vm()
    plan = plan_for(machine, refusal="exceeded quota")
    status = published(plan)
    assert len(plan.actions) == 1
    assert (status.phase, condition(status, "Ready").reason) == ("Pending", "FailedCreate")
    recorded = msgspec.structs.replace(machine, status=status)
    [create] = plan_for(recorded, refusal="exceeded quota").actions
    assert isinstance(create, CreatePod)


@pytest.mark.parametrize(
    ("state", "phase", "ready"),
    [
        ({}, "Scheduling", "GuestNotRunning"),
        ({"unschedulable": "0/3 nodes are available"}, "Scheduling", "Unschedulable"),
        ({"node": "kwok-node-1"}, "Scheduled", "GuestNotRunning"),
        ({"node": "kwok-node-1", "phase": "Running"}, "Running", "GuestRunning"),
        ({"node": "kwok-node-1", "phase": "Running", "ready": False}, "Running", "GuestNotRunning"),
        ({"node": "kwok-node-1", "phase": "Failed"}, "Failed", "PodFailed"),
        ({"node": "kwok-node-1", "phase": "Succeeded"}, "Failed", "PodFailed"),
    ],
)
def test_phase_and_ready_reason_are_functions_of_the_pod(state: dict[str, object], phase: str, ready: str) -> None:
    """Of a pod in any state."""
    machine = vm()
    status = published(plan_for(machine, pod(machine, **state)))  # type: ignore[arg-type]
    assert (status.phase, condition(status, "Ready").reason) == (phase, ready)


def test_ready_names_the_node_that_stopped_reporting() -> None:
    """The node controller changes Ready alone; GuestNotRunning would be wrong after hours of running."""
    machine = vm()
    flipped = (Condition(type="Ready", status="False"), Condition(type="ContainersReady", status="True"))
    silent = pod(machine, phase="Running", node="kwok-node-1", ready=False, conditions=flipped)
    status = published(plan_for(settled(machine, running(machine)), silent))
    assert (status.phase, condition(status, "Ready").reason) == ("Running", "NodeNotReady")
    assert "kwok-node-1" in condition(status, "Ready").message


@pytest.mark.parametrize(
    ("ready", "containers"),
    [
        (Condition(type="Ready", status="False", reason="ContainersNotReady"), "False"),
        (Condition(type="Ready", status="False", reason="ReadinessGatesNotReady"), "True"),
        (Condition(type="Ready", status="Unknown"), "True"),
    ],
)
def test_ready_names_no_node_when_the_kubelet_reports_not_ready(ready: Condition, containers: str) -> None:
    """Only the node controller's pattern of conditions counts."""
    machine = vm()
    conditions = (ready, Condition(type="ContainersReady", status=containers))
    status = published(
        plan_for(machine, pod(machine, phase="Running", node="kwok-node-1", ready=False, conditions=conditions))
    )
    assert condition(status, "Ready").reason == "GuestNotRunning"


def test_ready_shows_the_schedulers_reason() -> None:
    """Verbatim."""
    machine = vm()
    status = published(plan_for(machine, pod(machine, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")))
    assert condition(status, "Ready").message == "0/3 nodes are available: 3 Insufficient cpu."


def test_phases_that_passed_between_two_writes_enter_the_history_in_order() -> None:
    """One write adds all four phases."""
    machine = vm()
    status = published(plan_for(machine, running(machine)))
    assert history(status) == ["Pending", "Scheduling", "Scheduled", "Running"]


def test_the_plan_for_a_settled_vm_is_empty() -> None:
    """Its status is a fixpoint."""
    machine = settled(vm(), running(vm()))
    assert plan_for(machine, running(vm())) == Plan()


def test_ready_is_the_first_condition_and_retains_its_time_until_it_flips() -> None:
    """`kubectl wait` takes the first condition of a type; its time is that of the last flip."""
    machine = settled(vm(), running(vm()))
    assert machine.status.conditions[0].type == "Ready"
    later = NOW + timedelta(minutes=5)
    edited = msgspec.structs.replace(
        machine, metadata=msgspec.structs.replace(machine.metadata, annotations={names.CPU_CONSUMPTION: "0.9"})
    )
    status = published(plan_for(edited, running(vm()), now=later))
    assert condition(status, "Ready") == condition(machine.status, "Ready")


def test_the_history_is_bounded() -> None:
    """The newest 50 transitions are retained."""
    machine = vm()
    for incarnation in range(40):
        machine = settled(machine, running(machine, incarnation))
        replaced = published(plan_for(machine))
        machine = msgspec.structs.replace(machine, status=replaced)
    assert len(history(machine.status)) == 50
    assert history(machine.status)[-1] == "Scheduling"


# --- replacement -----------------------------------------------------------------------------------------------


def test_a_missing_pod_is_replaced_by_the_next_incarnation_after_a_live_read() -> None:
    """The guarded write comes first; a later reconcile creates the pod."""
    machine = settled(vm(), running(vm()))
    confirm, write = plan_for(machine).actions
    assert confirm == ConfirmPodGone(names.pod_name("vm-1", "uid-1", 0))
    assert isinstance(write, WriteStatus)
    assert (write.status.incarnation, write.status.phase) == (1, "Scheduling")
    assert write.status.pod_name == names.pod_name("vm-1", "uid-1", 1)
    assert (write.status.pod_uid, write.status.node_name) == (None, None)


def test_the_create_of_the_next_incarnation_names_its_predecessor() -> None:
    """A live read has to show that no such pod exists."""
    machine = settled(vm(), running(vm()))
    machine = msgspec.structs.replace(machine, status=published(plan_for(machine)))
    [create] = plan_for(machine).actions
    assert isinstance(create, CreatePod)
    assert (create.incarnation, create.predecessor) == (1, names.pod_name("vm-1", "uid-1", 0))


def test_an_older_pod_is_deleted_and_waited_for_before_the_next_is_created() -> None:
    """No create while a pod of an earlier incarnation exists, terminating or not."""
    machine = settled(vm(), running(vm()))
    machine = msgspec.structs.replace(machine, status=published(plan_for(machine)))
    old = running(machine, 0)
    assert plan_for(machine, old).actions == (DeletePod(old, "incarnation 1 replaces it"),)
    assert plan_for(machine, pod(machine, 0, phase="Running", terminating=True)).actions == ()


def test_the_incarnation_stays_while_a_create_may_still_commit() -> None:
    """Meanwhile the status reports that there is no pod."""
    machine = settled(vm(), running(vm()))
    plan = plan_for(machine, create_expected=7.0)
    assert plan.requeue_after == 7.0
    assert (published(plan).phase, published(plan).incarnation) == ("Pending", 0)
    assert condition(published(plan), "Ready").reason == "PodNotExists"
    assert published(plan).pod_uid == machine.status.pod_uid


def test_a_terminating_pod_counts_as_live() -> None:
    """The status reports the deletion; nothing is created."""
    machine = settled(vm(), running(vm()))
    plan = plan_for(machine, pod(machine, phase="Running", node="kwok-node-1", terminating=True))
    assert published(plan).phase == "Running"
    assert condition(published(plan), "Ready").reason == "PodTerminating"
    assert len(plan.actions) == 1


def test_a_terminating_pod_that_ends_is_no_failure() -> None:
    """A kubelet ends the containers of a deleted pod."""
    machine = settled(vm(), running(vm()))
    ended = pod(machine, phase="Failed", node="kwok-node-1", terminating=True)
    status = published(plan_for(machine, ended))
    assert (status.phase, status.start_failure, history(status)) == ("Running", None, history(machine.status))
    assert condition(status, "Ready").reason == "PodTerminating"
    assert plan_for(msgspec.structs.replace(machine, status=status), ended) == Plan()


def test_a_failed_vm_stays_failed_while_its_pod_is_deleted() -> None:
    """It waits for its backoff."""
    failed = pod(vm(), phase="Failed", node="kwok-node-1")
    machine = settled(vm(), failed)
    assert machine.status.phase == "Failed"
    status = published(plan_for(machine, pod(machine, phase="Failed", node="kwok-node-1", terminating=True)))
    assert (status.phase, history(status)) == ("Failed", history(machine.status))
    assert condition(status, "Ready").reason == "PodTerminating"


def test_a_wiped_status_adopts_the_highest_incarnation_of_a_pod() -> None:
    """The count does not restart below it."""
    machine = vm()
    status = published(plan_for(machine, running(machine, 7)))
    assert (status.incarnation, status.pod_name) == (7, names.pod_name("vm-1", "uid-1", 7))


def test_of_two_pods_the_lower_incarnation_is_deleted() -> None:
    """Two processes acted."""
    machine = settled(vm(), running(vm(), 2))
    stray = running(machine, 1)
    assert plan_for(machine, stray, running(machine, 2)).actions == (DeletePod(stray, "incarnation 2 replaces it"),)


def test_a_pod_without_its_incarnation_annotation_is_replaced() -> None:
    """Adoption needs the annotation."""
    machine = settled(vm(), running(vm()))
    nameless = pod(machine, phase="Running", node="kwok-node-1", drop_annotations=(names.INCARNATION,))
    assert plan_for(machine, nameless).actions == (DeletePod(nameless, "incarnation 0 replaces it"),)


# --- failure ---------------------------------------------------------------------------------------------------


def test_a_failed_pod_stays_until_its_backoff_ends() -> None:
    """First the failure and the time of the retry are recorded, then the plan waits for that time."""
    machine = vm()
    failed = pod(machine, phase="Failed", node="kwok-node-1", reason="Evicted", message="node was low on memory")
    status = published(plan_for(machine, failed))
    assert status.start_failure is not None
    assert status.start_failure.consecutive_fail_count == 1
    assert status.start_failure.retry_after_timestamp == "2026-01-15T10:30:10Z"
    assert condition(status, "Ready").message.endswith("ended as Failed: Evicted: node was low on memory")
    waiting = plan_for(msgspec.structs.replace(machine, status=status), failed)
    assert (waiting.actions, waiting.requeue_after) == ((), 10.0)


def test_a_failed_pod_is_replaced_when_its_backoff_ends() -> None:
    """The incarnation moves; deleting the failed pod and creating the next are later steps."""
    failed = pod(vm(), phase="Failed", node="kwok-node-1")
    machine = settled(vm(), failed)
    status = published(plan_for(machine, failed, now=NOW + timedelta(seconds=11)))
    assert (status.incarnation, status.phase) == (1, "Scheduling")
    assert status.start_failure == machine.status.start_failure


def test_the_backoff_outlives_the_failed_pod() -> None:
    """Deleting a failed pod by hand does not shorten it."""
    machine = settled(vm(), pod(vm(), phase="Failed"))
    plan = plan_for(machine)
    assert plan.requeue_after == 10.0
    assert not any(isinstance(action, CreatePod) for action in plan.actions)


def test_the_start_backoff_grows_with_failures_up_to_five_minutes() -> None:
    """10, 40, 90, 160, 250, 300, 300 s: KubeVirt's 10·n² with its cap."""
    machine = vm()
    waits = []
    moment = NOW
    for number in range(7):
        failed = pod(machine, number, phase="Failed", uid=f"pod-{number}")
        machine = msgspec.structs.replace(machine, status=published(plan_for(machine, failed, now=moment)))
        wait = plan_for(machine, failed, now=moment).requeue_after
        assert wait is not None
        waits.append(wait)
        moment += timedelta(seconds=wait + 1)
        machine = msgspec.structs.replace(machine, status=published(plan_for(machine, failed, now=moment)))
    assert waits == [10.0, 40.0, 90.0, 160.0, 250.0, 300.0, 300.0]


def test_a_vm_that_runs_again_resets_its_failure_count() -> None:
    """Its status has no start failure."""
    machine = settled(vm(), pod(vm(), phase="Failed"))
    moved = published(plan_for(machine, pod(vm(), phase="Failed"), now=NOW + timedelta(minutes=1)))
    machine = msgspec.structs.replace(machine, status=moved)
    assert published(plan_for(machine, running(machine, 1))).start_failure is None


# --- stopping and deleting -------------------------------------------------------------------------------------


def test_stopping_deletes_the_pod_and_waits_for_it() -> None:
    """Stopped is published only when the pod no longer exists."""
    machine = settled(vm(running=False), running(vm()))
    live = running(machine)
    assert plan_for(machine, live).actions == (DeletePod(live, "the VM is stopped"),)


def test_a_stopped_vm_gets_its_next_incarnation_with_the_stop() -> None:
    """Starting again then needs no further write; a live read of the recorded pod comes first."""
    machine = msgspec.structs.replace(settled(vm(), running(vm())), spec=vm(running=False).spec)
    confirm, write = plan_for(machine).actions
    assert confirm == ConfirmPodGone(names.pod_name("vm-1", "uid-1", 0))
    assert isinstance(write, WriteStatus)
    assert (write.status.phase, write.status.incarnation, write.status.pod_name) == ("Stopped", 1, None)
    stopped = msgspec.structs.replace(machine, status=write.status)
    assert plan_for(stopped) == Plan()


def test_a_stopped_vm_starts_again_under_a_new_pod_name() -> None:
    """A name that was used is never used again."""
    machine = msgspec.structs.replace(settled(vm(), running(vm())), spec=vm(running=False).spec)
    stopped = msgspec.structs.replace(machine, status=published(plan_for(machine)), spec=vm().spec)
    [create] = plan_for(stopped).actions
    assert isinstance(create, CreatePod)
    assert (create.incarnation, create.predecessor) == (1, names.pod_name("vm-1", "uid-1", 0))


def test_a_vm_that_never_ran_stops_without_using_up_an_incarnation() -> None:
    """There is no pod to confirm, and no name to skip."""
    status = published(plan_for(vm(running=False)))
    assert (status.phase, status.incarnation) == ("Stopped", 0)


def test_a_vm_being_deleted_gets_no_pod_and_its_pod_is_deleted() -> None:
    """The spec no longer matters."""
    machine = vm(deleted=True, finalizers=("foregroundDeletion",))
    live = running(machine)
    assert plan_for(machine).actions == ()
    assert plan_for(machine, live).actions == (DeletePod(live, "its VM is being deleted"),)


def test_the_pod_of_a_vm_that_is_orphaned_is_not_touched() -> None:
    """By `--cascade=orphan`."""
    machine = vm(deleted=True, finalizers=("orphan",))
    assert plan_for(machine, running(machine)).actions == ()


def test_the_pod_of_a_deleted_vm_is_deleted_after_a_live_read() -> None:
    """The cache may be stale."""
    orphan = running(vm())
    assert plan_for(None, orphan).actions == (
        ConfirmVMGone("vm-1", "uid-1"),
        DeletePod(orphan, "its VM no longer exists"),
    )


def test_a_vm_waits_for_the_pod_of_its_namesake() -> None:
    """That pod is deleted; nothing is created before."""
    old = running(vm(uid="uid-0"))
    soon = NOW - timedelta(seconds=13)  # the VM is two seconds old
    plan = plan_for(vm(), old, now=soon)
    assert plan.actions == (ConfirmVMGone("vm-1", "uid-0"), DeletePod(old, "its VM was replaced"))
    ending = pod(vm(uid="uid-0"), phase="Running", terminating=True)
    assert plan_for(vm(), ending, now=soon) == Plan(requeue_after=3)


# --- edits -----------------------------------------------------------------------------------------------------


def test_changed_consumption_reaches_status_and_pod_without_a_new_pod() -> None:
    """Usage may change at any time; the pod stays."""
    machine = settled(vm(), running(vm()))
    live = running(vm())
    edited = msgspec.structs.replace(
        machine,
        metadata=msgspec.structs.replace(machine.metadata, annotations={names.CPU_CONSUMPTION: "0.50"}),
    )
    patch, write = plan_for(edited, live).actions
    assert patch == PatchPod(
        live, labels={}, annotations={names.CPU_CONSUMPTION: "0.50", names.KWOK_USAGE_CPU: "16000m"}
    )
    assert isinstance(write, WriteStatus)
    assert (write.status.cpu_consumption, write.status.incarnation) == ("0.50", 0)


def test_removed_labels_are_restored() -> None:
    """On the same pod, in one patch."""
    machine = settled(vm(), running(vm()))
    live = running(vm())
    labels = {k: v for k, v in live.metadata.labels.items() if k != names.KUBEVIRT_APP_LABEL}
    bare = msgspec.structs.replace(live, metadata=msgspec.structs.replace(live.metadata, labels=labels))
    assert plan_for(machine, bare).actions == (PatchPod(bare, {names.KUBEVIRT_APP_LABEL: "virt-launcher"}, {}),)


def test_an_edit_of_the_spec_requires_a_restart_and_changes_consumption_at_once() -> None:
    """The pod keeps its requests."""
    machine = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(machine, spec=vm(cpu="0.30").spec)
    status = published(plan_for(edited, running(vm())))
    assert condition(status, "RestartRequired").status == "True"
    assert (status.cpu_consumption, status.phase, status.incarnation) == ("0.30", "Running", 0)


def test_the_same_ratio_written_differently_requires_no_restart() -> None:
    """0.2 is 0.20."""
    machine = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(machine, spec=vm(memory="0.2").spec)
    kinds = [found.type for found in published(plan_for(edited, running(vm()))).conditions]
    assert "RestartRequired" not in kinds


def test_a_malformed_annotation_is_a_condition_and_the_spec_is_used() -> None:
    """The VM keeps running."""
    machine = vm(annotations={names.CPU_CONSUMPTION: "lots"})
    status = published(plan_for(machine, running(machine)))
    assert status.cpu_consumption == "0.15"
    assert "cpu-consumption is 'lots'" in condition(status, "InvalidConsumption").message


@pytest.mark.parametrize("resources", [VMResources(cpu=0.1, memory="0.2"), VMResources(cpu="0.1"), VMResources()])
def test_a_spec_that_violates_the_schema_fails_the_vm_with_its_reason(resources: VMResources) -> None:
    """Phase Failed, reason InvalidSpec, and no pod."""
    machine = vm()
    machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, resources=resources))
    plan = plan_for(machine)
    assert (published(plan).phase, condition(published(plan), "Ready").reason) == ("Failed", "InvalidSpec")
    assert plan_for(msgspec.structs.replace(machine, status=published(plan))) == Plan()


def test_a_spec_that_turns_invalid_while_a_create_may_commit_fails_the_vm_afterwards() -> None:
    """The reason is published at once; Failed only after a live read, since the pod may come without its labels."""
    machine = vm(cpu="x", status=VMStatus(phase="Scheduling", pod_name="p", pod_uid="u", incarnation=0))
    expected = plan_for(machine, create_expected=7)
    assert (published(expected).phase, condition(published(expected), "Ready").reason) == ("Scheduling", "InvalidSpec")
    assert expected.requeue_after == 7
    recorded = msgspec.structs.replace(machine, status=published(expected))
    assert plan_for(recorded, create_expected=3) == Plan(requeue_after=3)
    [confirm, _] = plan_for(recorded).actions
    assert isinstance(confirm, ConfirmPodGone)
    assert published(plan_for(recorded)).phase == "Failed"


def test_a_corrected_spec_gets_its_pod() -> None:
    """The history contains both phases."""
    broken = msgspec.structs.replace(vm(), status=published(plan_for(vm(cpu="x"))))
    [create] = plan_for(broken).actions
    assert isinstance(create, CreatePod)
    status = published(plan_for(broken, running(broken)))
    assert history(status) == ["Pending", "Failed", "Scheduling", "Scheduled", "Running"]


def test_the_name_of_a_missing_pod_is_not_reused_after_an_invalid_spec() -> None:
    """The record that the pod was seen survives the phase Failed."""
    machine = settled(vm(), running(vm()))
    broken = msgspec.structs.replace(machine, spec=vm(cpu="x").spec)
    failed = msgspec.structs.replace(machine, status=published(plan_for(broken)))
    status = published(plan_for(failed))
    assert status.incarnation == 1


# --- nodes -----------------------------------------------------------------------------------------------------


def test_a_pod_of_a_deleted_node_is_force_deleted_after_a_live_read() -> None:
    """No kubelet is left to finish a graceful deletion."""
    machine = settled(vm(), running(vm()))
    live = running(machine)
    plan = decide(View(machine, (live,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert plan.actions == (
        ConfirmNodeGone("kwok-node-1"),
        DeletePod(live, "its node kwok-node-1 no longer exists", force=True),
    )


def test_an_unrecorded_pod_is_recorded_before_it_is_force_deleted() -> None:
    """Otherwise its name would count as unused, and be used again."""
    machine = vm()
    live = running(machine)
    plan = decide(View(machine, (live,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert published(plan).pod_uid == live.metadata.uid
    assert len(plan.actions) == 1


def test_a_terminating_pod_of_a_deleted_vm_and_a_deleted_node_is_force_deleted() -> None:
    """It would be terminating for ever."""
    ending = pod(vm(), phase="Running", node="kwok-node-1", terminating=True)
    plan = decide(View(None, (ending,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert plan.actions[-1] == DeletePod(ending, "its node kwok-node-1 no longer exists", force=True)


def test_a_pod_of_an_existing_node_is_not_force_deleted() -> None:
    """A graceful deletion is left to finish."""
    ending = pod(vm(), phase="Running", node="kwok-node-1", terminating=True)
    assert plan_for(None, ending) == Plan()


def test_the_incarnation_moves_after_a_pod_that_was_seen_but_not_recorded() -> None:
    """Its name is never used again, although no status contains it."""
    plan = plan_for(vm(status=VMStatus(incarnation=1)), seen=1)
    assert published(plan).incarnation == 2


def test_the_incarnation_stays_when_only_an_earlier_one_was_seen() -> None:
    """Otherwise one would be skipped."""
    plan = plan_for(vm(status=VMStatus(incarnation=1)), seen=0)
    assert [action.incarnation for action in plan.actions if isinstance(action, CreatePod)] == [1]
