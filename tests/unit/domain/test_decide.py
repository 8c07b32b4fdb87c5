"""What `decide` plans for every state a VM and its pods can be in."""

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

# --- a first life ----------------------------------------------------------------------------------------------


def test_a_new_vm_gets_its_first_pod_with_no_status_write_before_it() -> None:
    """Creating is one request: the name is deterministic, so no write has to come first."""
    machine = vm()
    [create] = plan_for(machine).actions
    assert isinstance(create, CreatePod)
    assert create.name == names.pod_name("vm-1", "uid-1", 0)
    assert create.predecessor is None


def test_a_refused_create_is_told_before_it_is_tried_again() -> None:
    """The refusal stands in Ready; once it stands there, the next plan tries again."""
    machine = vm()
    plan = plan_for(machine, refusal="exceeded quota")
    status = published(plan)
    assert len(plan.actions) == 1
    assert (status.phase, condition(status, "Ready").reason) == ("Pending", "FailedCreate")
    told = msgspec.structs.replace(machine, status=status)
    [create] = plan_for(told, refusal="exceeded quota").actions
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
def test_the_phase_follows_the_pod(state: dict[str, object], phase: str, ready: str) -> None:
    """Phase and the reason of Ready are functions of the pod."""
    machine = vm()
    status = published(plan_for(machine, pod(machine, **state)))  # type: ignore[arg-type]
    assert (status.phase, condition(status, "Ready").reason) == (phase, ready)


def test_a_pod_whose_node_stopped_reporting_names_the_node() -> None:
    """The node controller flips Ready alone; a VM that ran for hours is not told to be not ready yet."""
    machine = vm()
    flipped = (Condition(type="Ready", status="False"), Condition(type="ContainersReady", status="True"))
    silent = pod(machine, phase="Running", node="kwok-node-1", ready=False, told=flipped)
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
def test_a_pod_that_its_kubelet_calls_not_ready_blames_no_node(ready: Condition, containers: str) -> None:
    """Only what the node controller leaves behind is read as its word."""
    machine = vm()
    told = (ready, Condition(type="ContainersReady", status=containers))
    status = published(plan_for(machine, pod(machine, phase="Running", node="kwok-node-1", ready=False, told=told)))
    assert condition(status, "Ready").reason == "GuestNotRunning"


def test_the_schedulers_reason_is_shown() -> None:
    """A VM that fits nowhere says so in the scheduler's own words."""
    machine = vm()
    status = published(plan_for(machine, pod(machine, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")))
    assert condition(status, "Ready").message == "0/3 nodes are available: 3 Insufficient cpu."


def test_phases_that_passed_between_two_writes_enter_the_history_in_order() -> None:
    """One write tells all four phases."""
    machine = vm()
    status = published(plan_for(machine, running(machine)))
    assert history(status) == ["Pending", "Scheduling", "Scheduled", "Running"]


def test_a_settled_vm_is_left_alone() -> None:
    """A fixpoint costs nothing."""
    machine = settled(vm(), running(vm()))
    assert plan_for(machine, running(vm())) == Plan()


def test_ready_stands_first_and_keeps_its_time_until_it_flips() -> None:
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
    """Only the newest 50 transitions are kept."""
    machine = vm()
    for life in range(40):
        machine = settled(machine, running(machine, life))
        gone = published(plan_for(machine))
        machine = msgspec.structs.replace(machine, status=gone)
    assert len(history(machine.status)) == 50
    assert history(machine.status)[-1] == "Scheduling"


# --- replacement -----------------------------------------------------------------------------------------------


def test_a_pod_that_vanished_is_replaced_by_moving_the_incarnation_first() -> None:
    """First a live look at the recorded name, then the guarded write; the pod comes with a later reconcile."""
    machine = settled(vm(), running(vm()))
    confirm, write = plan_for(machine).actions
    assert confirm == ConfirmPodGone(names.pod_name("vm-1", "uid-1", 0))
    assert isinstance(write, WriteStatus)
    assert (write.status.incarnation, write.status.phase) == (1, "Scheduling")
    assert write.status.pod_name == names.pod_name("vm-1", "uid-1", 1)
    assert (write.status.pod_uid, write.status.node_name) == (None, None)


def test_the_next_life_is_created_after_a_look_at_its_predecessors_name() -> None:
    """The create carries the name whose absence has to be seen live."""
    machine = settled(vm(), running(vm()))
    machine = msgspec.structs.replace(machine, status=published(plan_for(machine)))
    [create] = plan_for(machine).actions
    assert isinstance(create, CreatePod)
    assert (create.incarnation, create.predecessor) == (1, names.pod_name("vm-1", "uid-1", 0))


def test_an_older_pod_is_deleted_and_waited_for_before_the_next_is_created() -> None:
    """No create while a pod of an earlier incarnation lives, terminating or not."""
    machine = settled(vm(), running(vm()))
    machine = msgspec.structs.replace(machine, status=published(plan_for(machine)))
    old = running(machine, 0)
    assert plan_for(machine, old).actions == (DeletePod(old, "incarnation 1 replaces it"),)
    assert plan_for(machine, pod(machine, 0, phase="Running", terminating=True)).actions == ()


def test_the_incarnation_does_not_move_while_a_create_may_still_commit() -> None:
    """The hold is waited for; meanwhile the status says honestly that there is no pod."""
    machine = settled(vm(), running(vm()))
    plan = plan_for(machine, create_expected=7.0)
    assert plan.requeue_after == 7.0
    assert (published(plan).phase, published(plan).incarnation) == ("Pending", 0)
    assert condition(published(plan), "Ready").reason == "PodNotExists"
    assert published(plan).pod_uid == machine.status.pod_uid


def test_a_terminating_pod_is_no_reason_to_create_another() -> None:
    """Terminating counts as live: the status says so, and nothing else happens."""
    machine = settled(vm(), running(vm()))
    plan = plan_for(machine, pod(machine, phase="Running", node="kwok-node-1", terminating=True))
    assert published(plan).phase == "Running"
    assert condition(published(plan), "Ready").reason == "PodTerminating"
    assert len(plan.actions) == 1


def test_a_terminating_pod_that_ends_is_no_failure() -> None:
    """A kubelet ends the containers of a deleted pod: that must not count against the VM."""
    machine = settled(vm(), running(vm()))
    ended = pod(machine, phase="Failed", node="kwok-node-1", terminating=True)
    status = published(plan_for(machine, ended))
    assert (status.phase, status.start_failure, history(status)) == ("Running", None, history(machine.status))
    assert condition(status, "Ready").reason == "PodTerminating"
    assert plan_for(msgspec.structs.replace(machine, status=status), ended) == Plan()


def test_a_failed_pod_that_is_deleted_stays_the_failure_it_was() -> None:
    """The VM has failed, and waits to be started again."""
    failed = pod(vm(), phase="Failed", node="kwok-node-1")
    machine = settled(vm(), failed)
    assert machine.status.phase == "Failed"
    status = published(plan_for(machine, pod(machine, phase="Failed", node="kwok-node-1", terminating=True)))
    assert (status.phase, history(status)) == ("Failed", history(machine.status))
    assert condition(status, "Ready").reason == "PodTerminating"


def test_a_wiped_status_adopts_the_highest_incarnation_there_is() -> None:
    """The count is not restarted below a pod that exists."""
    machine = vm()
    status = published(plan_for(machine, running(machine, 7)))
    assert (status.incarnation, status.pod_name) == (7, names.pod_name("vm-1", "uid-1", 7))


def test_of_two_pods_the_higher_incarnation_counts_and_the_other_goes() -> None:
    """Two processes acted: the recorded pod stays, the other is deleted at once."""
    machine = settled(vm(), running(vm(), 2))
    stray = running(machine, 1)
    assert plan_for(machine, stray, running(machine, 2)).actions == (DeletePod(stray, "incarnation 2 replaces it"),)


def test_a_pod_whose_incarnation_was_edited_away_is_not_adopted() -> None:
    """Adoption needs the annotation; without it the pod is an older one, to be replaced."""
    machine = settled(vm(), running(vm()))
    nameless = pod(machine, phase="Running", node="kwok-node-1", drop_annotations=(names.INCARNATION,))
    assert plan_for(machine, nameless).actions == (DeletePod(nameless, "incarnation 0 replaces it"),)


# --- failure ---------------------------------------------------------------------------------------------------


def test_a_failed_pod_is_kept_until_its_backoff_is_over() -> None:
    """First the failure and the time of the retry are recorded, then that time is waited for."""
    machine = vm()
    failed = pod(machine, phase="Failed", node="kwok-node-1", reason="Evicted", message="node was low on memory")
    status = published(plan_for(machine, failed))
    assert status.start_failure is not None
    assert status.start_failure.consecutive_fail_count == 1
    assert status.start_failure.retry_after_timestamp == "2026-01-15T10:30:10Z"
    assert condition(status, "Ready").message.endswith("ended as Failed: Evicted: node was low on memory")
    waiting = plan_for(msgspec.structs.replace(machine, status=status), failed)
    assert (waiting.actions, waiting.requeue_after) == ((), 10.0)


def test_a_failed_pod_is_replaced_when_its_backoff_is_over() -> None:
    """The incarnation moves; deleting the failed pod and creating the next are later steps."""
    failed = pod(vm(), phase="Failed", node="kwok-node-1")
    machine = settled(vm(), failed)
    status = published(plan_for(machine, failed, now=NOW + timedelta(seconds=11)))
    assert (status.incarnation, status.phase) == (1, "Scheduling")
    assert status.start_failure == machine.status.start_failure


def test_the_backoff_outlives_the_failed_pod() -> None:
    """Deleting a failed pod by hand is no way around the wait."""
    machine = settled(vm(), pod(vm(), phase="Failed"))
    plan = plan_for(machine)
    assert plan.requeue_after == 10.0
    assert not any(isinstance(action, CreatePod) for action in plan.actions)


def test_failures_in_a_row_wait_longer_up_to_five_minutes() -> None:
    """10, 40, 90, 160, 250, 300, 300 s: KubeVirt's 10·n² with its cap."""
    machine = vm()
    waits = []
    moment = NOW
    for life in range(7):
        failed = pod(machine, life, phase="Failed", uid=f"pod-{life}")
        machine = msgspec.structs.replace(machine, status=published(plan_for(machine, failed, now=moment)))
        wait = plan_for(machine, failed, now=moment).requeue_after
        assert wait is not None
        waits.append(wait)
        moment += timedelta(seconds=wait + 1)
        machine = msgspec.structs.replace(machine, status=published(plan_for(machine, failed, now=moment)))
    assert waits == [10.0, 40.0, 90.0, 160.0, 250.0, 300.0, 300.0]


def test_a_vm_that_runs_again_forgets_its_failures() -> None:
    """Running resets the count."""
    machine = settled(vm(), pod(vm(), phase="Failed"))
    moved = published(plan_for(machine, pod(vm(), phase="Failed"), now=NOW + timedelta(minutes=1)))
    machine = msgspec.structs.replace(machine, status=moved)
    assert published(plan_for(machine, running(machine, 1))).start_failure is None


# --- stopping and deleting -------------------------------------------------------------------------------------


def test_stopping_deletes_the_pod_and_waits_for_it() -> None:
    """Stopped is published only when the pod is gone."""
    machine = settled(vm(running=False), running(vm()))
    live = running(machine)
    assert plan_for(machine, live).actions == (DeletePod(live, "the VM is stopped"),)


def test_a_stopped_vm_gets_its_next_incarnation_with_the_stop() -> None:
    """So starting again needs no further write; the recorded pod is looked for once more."""
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
    """Stopped from the start: nothing to confirm, nothing to skip."""
    status = published(plan_for(vm(running=False)))
    assert (status.phase, status.incarnation) == ("Stopped", 0)


def test_a_vm_being_deleted_gets_no_pod_and_loses_the_one_it_has() -> None:
    """A deletionTimestamp ends the VM's life, whatever the spec says."""
    machine = vm(deleted=True, finalizers=("foregroundDeletion",))
    live = running(machine)
    assert plan_for(machine).actions == ()
    assert plan_for(machine, live).actions == (DeletePod(live, "its VM is being deleted"),)


def test_a_vm_being_orphaned_leaves_its_pod_alone() -> None:
    """`--cascade=orphan` frees the pod; freeing is not deleting."""
    machine = vm(deleted=True, finalizers=("orphan",))
    assert plan_for(machine, running(machine)).actions == ()


def test_the_pod_of_a_vm_that_is_gone_is_deleted_after_a_live_look() -> None:
    """The cache may be stale: only a live read makes a VM gone."""
    orphan = running(vm())
    assert plan_for(None, orphan).actions == (
        ConfirmVMGone("vm-1", "uid-1"),
        DeletePod(orphan, "its VM no longer exists"),
    )


def test_a_vm_recreated_under_its_name_waits_for_its_predecessors_pod() -> None:
    """The old UID's pod is collected, and while it lives nothing is created."""
    old = running(vm(uid="uid-0"))
    soon = NOW - timedelta(seconds=13)  # the VM is two seconds old
    plan = plan_for(vm(), old, now=soon)
    assert plan.actions == (ConfirmVMGone("vm-1", "uid-0"), DeletePod(old, "its VM was replaced"))
    leaving = pod(vm(uid="uid-0"), phase="Running", terminating=True)
    assert plan_for(vm(), leaving, now=soon) == Plan(requeue_after=3)


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


def test_labels_that_were_edited_away_come_back() -> None:
    """Every label that tools rely on is kept on the pod."""
    machine = settled(vm(), running(vm()))
    live = running(vm())
    labels = {k: v for k, v in live.metadata.labels.items() if k != names.KUBEVIRT_APP_LABEL}
    bare = msgspec.structs.replace(live, metadata=msgspec.structs.replace(live.metadata, labels=labels))
    assert plan_for(machine, bare).actions == (PatchPod(bare, {names.KUBEVIRT_APP_LABEL: "virt-launcher"}, {}),)


def test_an_edit_of_the_spec_asks_for_a_restart_and_moves_consumption_at_once() -> None:
    """The pod keeps its requests; what follows the spec changes now."""
    machine = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(machine, spec=vm(cpu="0.30").spec)
    status = published(plan_for(edited, running(vm())))
    assert condition(status, "RestartRequired").status == "True"
    assert (status.cpu_consumption, status.phase, status.incarnation) == ("0.30", "Running", 0)


def test_the_same_ratio_written_differently_asks_for_no_restart() -> None:
    """0.2 is 0.20."""
    machine = settled(vm(), running(vm()))
    edited = msgspec.structs.replace(machine, spec=vm(memory="0.2").spec)
    kinds = [found.type for found in published(plan_for(edited, running(vm()))).conditions]
    assert "RestartRequired" not in kinds


def test_an_unusable_annotation_is_told_and_the_spec_is_used() -> None:
    """A wrong annotation is a condition, never a stop."""
    machine = vm(annotations={names.CPU_CONSUMPTION: "lots"})
    status = published(plan_for(machine, running(machine)))
    assert status.cpu_consumption == "0.15"
    assert "cpu-consumption is 'lots'" in condition(status, "InvalidConsumption").message


@pytest.mark.parametrize("resources", [VMResources(cpu=0.1, memory="0.2"), VMResources(cpu="0.1"), VMResources()])
def test_a_spec_that_slipped_past_the_schema_fails_that_vm_and_says_why(resources: VMResources) -> None:
    """Phase Failed, reason InvalidSpec, and no pod."""
    machine = vm()
    machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, resources=resources))
    plan = plan_for(machine)
    assert (published(plan).phase, condition(published(plan), "Ready").reason) == ("Failed", "InvalidSpec")
    assert plan_for(msgspec.structs.replace(machine, status=published(plan))) == Plan()


def test_a_spec_that_turned_wrong_while_a_pod_may_still_come_is_told_at_once_and_judged_later() -> None:
    """What comes may be hidden by the time it is seen, and nobody would look for it any more."""
    machine = vm(cpu="x", status=VMStatus(phase="Scheduling", pod_name="p", pod_uid="u", incarnation=0))
    held = plan_for(machine, create_expected=7)
    assert (published(held).phase, condition(published(held), "Ready").reason) == ("Scheduling", "InvalidSpec")
    assert held.requeue_after == 7
    told = msgspec.structs.replace(machine, status=published(held))
    assert plan_for(told, create_expected=3) == Plan(requeue_after=3)
    [looks, _] = plan_for(told).actions
    assert isinstance(looks, ConfirmPodGone)
    assert published(plan_for(told)).phase == "Failed"


def test_a_spec_mended_after_a_failure_gets_its_pod() -> None:
    """Failed is no dead end, and the history tells both."""
    broken = msgspec.structs.replace(vm(), status=published(plan_for(vm(cpu="x"))))
    [create] = plan_for(broken).actions
    assert isinstance(create, CreatePod)
    status = published(plan_for(broken, running(broken)))
    assert history(status) == ["Pending", "Failed", "Scheduling", "Scheduled", "Running"]


def test_a_vanished_pods_name_is_not_reused_after_an_invalid_spec() -> None:
    """The memory that a pod was seen survives the detour through Failed."""
    machine = settled(vm(), running(vm()))
    broken = msgspec.structs.replace(machine, spec=vm(cpu="x").spec)
    failed = msgspec.structs.replace(machine, status=published(plan_for(broken)))
    status = published(plan_for(failed))
    assert status.incarnation == 1


# --- nodes -----------------------------------------------------------------------------------------------------


def test_a_pod_on_a_node_that_is_gone_is_deleted_at_once_after_a_live_look() -> None:
    """Nobody is left on that node to finish a graceful deletion."""
    machine = settled(vm(), running(vm()))
    live = running(machine)
    plan = decide(View(machine, (live,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert plan.actions == (
        ConfirmNodeGone("kwok-node-1"),
        DeletePod(live, "its node kwok-node-1 no longer exists", force=True),
    )


def test_a_pod_that_no_status_tells_is_recorded_before_it_is_forced_away() -> None:
    """Otherwise its name would be taken for unused, and used again."""
    machine = vm()
    live = running(machine)
    plan = decide(View(machine, (live,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert published(plan).pod_uid == live.metadata.uid
    assert len(plan.actions) == 1


def test_a_pod_left_by_a_deleted_vm_on_a_node_that_is_gone_goes_too() -> None:
    """Terminating for ever is no end."""
    leaving = pod(vm(), phase="Running", node="kwok-node-1", terminating=True)
    plan = decide(View(None, (leaving,), frozenset({"kwok-node-1"})), POLICY, Circumstances(now=NOW))
    assert plan.actions[-1] == DeletePod(leaving, "its node kwok-node-1 no longer exists", force=True)


def test_while_its_node_exists_no_pod_is_forced_away() -> None:
    """A graceful deletion is left to finish."""
    leaving = pod(vm(), phase="Running", node="kwok-node-1", terminating=True)
    assert plan_for(None, leaving) == Plan()


def test_a_life_that_was_seen_but_never_told_is_over_with_its_pod() -> None:
    """Its name is never used again, although no status names it."""
    plan = plan_for(vm(status=VMStatus(incarnation=1)), seen=1)
    assert published(plan).incarnation == 2


def test_a_life_seen_before_says_nothing_about_the_one_that_follows() -> None:
    """Or a life would be skipped."""
    plan = plan_for(vm(status=VMStatus(incarnation=1)), seen=0)
    assert [action.incarnation for action in plan.actions if isinstance(action, CreatePod)] == [1]
