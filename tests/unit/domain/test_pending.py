"""Migrations before their claim: why they wait or fail, and the questions that are asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain.migration.backoff import Backoff, backoff
from controller.domain.migration.demand import demand
from controller.domain.migration.phases import BOUNDED, Reason, refused_for
from controller.domain.migration.plan import (
    Answers,
    AskDryRun,
    AskNode,
    AskSlot,
    ClaimVM,
    ConfirmWanted,
    Plan,
    Refused,
    WriteMigration,
)
from controller.domain.objects import Claim, VMSpec
from controller.domain.vm import launcher, placement
from controller.domain.vm.placement import Placement
from controller.kube.kinds import Node, NodeSpec
from controller.kube.meta import Condition, ObjectMeta
from controller.kube.scheduling import Toleration
from tests.unit.domain.builders import NOW, POLICY, pod, vm
from tests.unit.domain.moves import CLAIM, SILENT, YES, at, decided, decided_with, failed, move, on_node_1, written

# --- backoff -----------------------------------------------------------------------------------------------------


def test_there_is_no_backoff_without_a_failure_since_the_last_success() -> None:
    """Neither for a first migration nor after a success."""
    assert backoff((), "uid-1", NOW) is None
    success = failed("m-2", at(-5), phase="Succeeded", failure_reason=None)
    assert backoff((failed("m-1", at(-6)), success), "uid-1", NOW) is None


def test_the_backoff_doubles_with_each_failure_and_counts_from_the_last() -> None:
    """20 s, 40 s, 80 s."""
    history = tuple(failed(f"m-{number}", at(number - 10)) for number in range(3))
    found = backoff(history, "uid-1", NOW)
    assert found == Backoff(failures=3, seconds=80, until=at(72), left=72)


def test_a_backoff_that_is_over_is_none() -> None:
    """To the second."""
    assert backoff((failed("m-1", at(-20)),), "uid-1", NOW) is None


@pytest.mark.parametrize("reason", ["TargetNotFound", "NoSuitableNode", "NoRoom", "VMNotRunning", "Cancelled"])
def test_a_failure_before_the_claim_causes_no_backoff(reason: str) -> None:
    """Such as a typo in the target's name."""
    refused = tuple(failed(f"m-{number}", at(-1), reason, start_timestamp=None) for number in range(5))
    assert backoff(refused, "uid-1", NOW) is None


def test_a_cancelled_migration_causes_no_backoff() -> None:
    """Not even after its claim."""
    assert backoff((failed("m-1", at(-1), "Cancelled"),), "uid-1", NOW) is None


@pytest.mark.parametrize("uid", ["uid-of-a-namesake", None])
def test_failures_of_a_namesake_cause_no_backoff(uid: str | None) -> None:
    """Nor those without a recorded VM."""
    assert backoff((failed("m-1", at(-1), vm_uid=uid),), "uid-1", NOW) is None


def test_the_message_of_a_backoff_names_its_end() -> None:
    """It stays the same until then."""
    plan = decided(move(), on_node_1(), history=(failed("m-0", at(-5)), failed("m-1", at(-1))))
    status = written(plan)
    assert status.message == (
        "The last 2 migrations of VM vm-1 failed after the VM was claimed; "
        "the next waits 40 s after that, until 2026-01-15T10:30:39Z"
    )
    assert status.conditions[0].reason == Reason.BACKOFF
    assert plan.requeue_after == 39


# --- refusals before any question ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "spec", "reason"),
    [
        (on_node_1(phase="Scheduled"), {}, Reason.VM_NOT_RUNNING),
        (on_node_1(node_name=None), {}, Reason.VM_NOT_RUNNING),
        (vm(running=False, status=on_node_1().status), {}, Reason.VM_NOT_RUNNING),
        (vm(deleted=True, status=on_node_1().status), {}, Reason.VM_NOT_RUNNING),
        (on_node_1(), {"target_node": "kwok-node-1"}, Reason.TARGET_IS_SOURCE),
        (on_node_1(), {"cancel": True}, Reason.CANCELLED),
        (None, {}, Reason.VM_NOT_FOUND),
        (on_node_1(migration=Claim(name="m-0", uid="uid-m-0")), {}, Reason.ANOTHER_MIGRATION),
    ],
)
def test_a_migration_that_its_vm_or_spec_forbids_fails_without_a_claim(
    machine: Any, spec: dict[str, Any], reason: Reason
) -> None:
    """No question is asked first."""
    plan = decided(move(**spec), machine)
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", reason)


def test_a_migration_with_a_field_that_did_not_decode_fails_without_a_claim() -> None:
    """The default target, any node, is not what the user wrote."""
    item = msgspec.structs.replace(move(), unreadable=("spec.targetNode: Expected `str | null`, got `object`",))
    plan = decided(item, on_node_1())
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", Reason.INVALID_SPEC)
    assert written(plan).message == item.unreadable[0]


def test_a_vm_with_malformed_ratios_is_not_moved() -> None:
    """No pod could be created for it."""
    plan = decided(move(), vm(cpu="plenty", status=on_node_1().status))
    assert written(plan).failure_reason == Reason.VM_NOT_RUNNING


@pytest.mark.parametrize(
    "ending", [{"terminating": True}, {"conditions": (Condition(type="DisruptionTarget", status="True"),)}]
)
def test_a_vm_whose_pod_is_evicted_or_terminating_is_not_moved(ending: dict[str, Any]) -> None:
    """One move at a time."""
    owner = on_node_1()
    plan = decided(move(), owner, pod(owner, uid=owner.status.pod_uid, node="kwok-node-1", **ending))
    assert written(plan).failure_reason == Reason.VM_NOT_RUNNING


def test_a_migration_of_a_recorded_vm_fails_as_vm_deleted_when_the_vm_is_missing() -> None:
    """Without a recorded VM the reason is VMNotFound."""
    plan = decided(move(state={"vm_uid": "uid-1"}), None)
    assert written(plan).failure_reason == Reason.VM_DELETED


# --- questions ---------------------------------------------------------------------------------------------------


def test_questions_are_asked_in_the_order_of_their_cost() -> None:
    """A slot, then a node, then a dry run, all about the same claim."""
    slot = decided_with(move(), on_node_1(), Answers())
    node = decided_with(move(), on_node_1(), Answers(slot=True))
    dry_run = decided_with(move(), on_node_1(), Answers(slot=True, node="kwok-node-2"))
    assert isinstance(slot, AskSlot)
    assert isinstance(node, AskNode)
    assert isinstance(dry_run, AskDryRun)
    assert slot.demand == node.demand == demand(dry_run.claim, on_node_1(), POLICY, None)
    assert dry_run.claim == CLAIM


def test_the_claim_follows_once_every_question_is_answered() -> None:
    """It names the node with the reservation; its guard is that the migration is unchanged."""
    reserved = msgspec.structs.replace(CLAIM, reserved_node="kwok-node-2")
    plan = decided_with(move(), on_node_1(), YES)
    assert plan == Plan((ConfirmWanted(), ClaimVM(reserved)))
    assert isinstance(plan, Plan)
    assert plan.claims


def test_the_claim_says_that_its_node_has_room_by_preemption() -> None:
    """A later process reports it, too."""
    plan = decided_with(move(), on_node_1(), msgspec.structs.replace(YES, by_preemption=True))
    reserved = msgspec.structs.replace(CLAIM, reserved_node="kwok-node-2", by_preemption=True)
    assert plan == Plan((ConfirmWanted(), ClaimVM(reserved)))


@pytest.mark.parametrize(
    ("made_with", "now", "policy", "priority", "edited"),
    [
        ("", "", "PreemptLowerPriority", 7, False),
        ("high", "high", "PreemptLowerPriority", 7, False),
        ("high", "high", "Never", None, False),
        ("high", "higher", "PreemptLowerPriority", None, True),
        ("", "high", "PreemptLowerPriority", None, True),
        ("high", "", "PreemptLowerPriority", None, True),
    ],
)
def test_a_vm_preempts_by_the_priority_of_its_running_pod(
    *, made_with: str, now: str, policy: Any, priority: int | None, edited: bool
) -> None:
    """The API server has resolved it; that of an edited class is not known."""
    owner, before = (
        msgspec.structs.replace(on_node_1(), spec=msgspec.structs.replace(on_node_1().spec, priority_class_name=name))
        for name in (now, made_with)
    )
    source = pod(before, uid=owner.status.pod_uid, phase="Running", node="kwok-node-1")
    resolved = msgspec.structs.replace(source.spec, priority=7, preemption_policy=policy)
    source = msgspec.structs.replace(source, spec=resolved)
    asked = decided_with(move(), owner, Answers(slot=True), pods=(source,))
    assert isinstance(asked, AskNode)
    assert (asked.demand.priority, asked.demand.edited_class) == (priority, edited)


def test_the_claim_reserves_no_node_without_permission_to_list_nodes() -> None:
    """The scheduler decides."""
    assert decided_with(move(), on_node_1(), Answers(slot=True, node="", accepted=True)) == Plan(
        (ConfirmWanted(), ClaimVM(CLAIM))
    )


def test_preflight_and_the_target_pod_have_the_same_placement() -> None:
    """Both derive it from the claim."""
    item = move(target_node="kwok-node-3", added_node_selector={"zone": "b", "disk": "fast"})
    found = decided_with(item, on_node_1(), Answers())
    assert isinstance(found, AskSlot)
    assert found.demand.placement == Placement(
        node="kwok-node-3", avoid="kwok-node-1", selector=(("disk", "fast"), ("zone", "b"))
    )
    claim = decided_with(item, on_node_1(), Answers(slot=True, node=""))
    assert isinstance(claim, AskDryRun)
    assert (
        launcher.target(on_node_1(), claim.claim, POLICY)["spec"]["affinity"]
        == placement.fields(VMSpec(), POLICY, found.demand.placement)["affinity"]
    )


def test_a_later_answer_is_awaited_without_a_write() -> None:
    """The reconcile is requeued."""
    assert decided_with(move(), on_node_1(), Answers(slot=True, later=2.5)) == Plan(requeue_after=2.5)


@pytest.mark.parametrize(
    ("target", "known", "reason"),
    [
        (None, True, Reason.TARGET_NOT_FOUND),
        (Node(ObjectMeta(name="n"), NodeSpec(unschedulable=True)), True, Reason.TARGET_UNSCHEDULABLE),
        (Node(ObjectMeta(name="n")), True, None),
        (None, False, None),
    ],
)
def test_a_missing_or_cordoned_target_fails_before_the_question_for_a_slot(
    *, target: Node | None, known: bool, reason: Reason | None
) -> None:
    """Unless the controller may not list nodes."""
    found = decided_with(move(target_node="n"), on_node_1(), Answers(), target_node=target, nodes_known=known)
    assert (written(found).failure_reason if isinstance(found, Plan) else None) == reason


def test_a_cordoned_target_is_no_obstacle_for_a_vm_that_tolerates_the_cordon() -> None:
    """The scheduler would place it there."""
    machine = on_node_1()
    machine = msgspec.structs.replace(
        machine, spec=msgspec.structs.replace(machine.spec, tolerations=(Toleration(operator="Exists"),))
    )
    cordoned = Node(ObjectMeta(name="n"), NodeSpec(unschedulable=True))
    found = decided_with(move(target_node="n"), machine, Answers(), target_node=cordoned, nodes_known=True)
    assert isinstance(found, AskSlot)


def test_a_missing_target_fails_although_another_refusal_is_temporary() -> None:
    """The temporary refusal is an earlier answer."""
    earlier = Answers(refused=Refused(Reason.QUOTA_EXCEEDED, "no", for_good=False))
    found = decided_with(move(target_node="n"), on_node_1(), earlier, nodes_known=True)
    assert isinstance(found, Plan)
    assert written(found).failure_reason == Reason.TARGET_NOT_FOUND


@pytest.mark.parametrize("reason", list(Reason))
def test_a_permanent_refusal_fails_the_migration_at_once(reason: Reason) -> None:
    """With the message of the refusal."""
    plan = decided_with(move(), on_node_1(), Answers(refused=Refused(reason, "no", for_good=True)))
    assert isinstance(plan, Plan)
    assert (written(plan).phase, written(plan).failure_reason, written(plan).message) == ("Failed", reason, "no")
    assert not plan.claims


@pytest.mark.parametrize("reason", list(Reason))
def test_a_temporary_refusal_waits_until_the_timeout_of_its_reason(reason: Reason) -> None:
    """From when that reason was first seen; waiting for a slot has no timeout."""
    item = move(unschedulable_timeout_seconds=60)
    answers = Answers(refused=Refused(reason, "no", for_good=False))
    phases = []
    for seconds in (59, 60):
        plan = decided_with(item, on_node_1(), answers, refused_since={reason: at(-seconds)})
        assert isinstance(plan, Plan)
        phases.append(written(plan).phase)
        assert written(plan).conditions[0].reason == reason
    assert phases == ["Pending", "Failed" if reason in BOUNDED else "Pending"]


@pytest.mark.parametrize(("waited", "again"), [(0, 5), (57, 3)])
def test_a_refused_migration_is_reconciled_again(waited: int, again: float) -> None:
    """After five seconds, or at its timeout."""
    refused = Answers(refused=Refused(Reason.NO_ROOM, "no", for_good=False))
    since = {Reason.NO_ROOM: at(-waited)}
    plan = decided_with(move(unschedulable_timeout_seconds=60), on_node_1(), refused, refused_since=since)
    assert isinstance(plan, Plan)
    assert plan.requeue_after == again


def test_a_migration_waits_while_the_node_of_its_source_is_silent() -> None:
    """The deletion of the pod would not finish."""
    plan = decided(move(), on_node_1(), source_node=SILENT)
    assert (written(plan).phase, written(plan).conditions[0].reason) == ("Pending", Reason.SOURCE_NODE_NOT_READY)
    assert plan.requeue_after == 10


def test_the_reason_with_a_timeout_is_read_from_a_pending_status() -> None:
    """Other reasons and finished migrations have none."""
    answers = Answers(refused=Refused(Reason.NO_ROOM, "no", for_good=False))
    plan = decided_with(move(), on_node_1(), answers)
    assert isinstance(plan, Plan)
    waiting = msgspec.structs.replace(move(), status=written(plan))
    assert refused_for(waiting) is Reason.NO_ROOM
    ended = msgspec.structs.replace(waiting, status=msgspec.structs.replace(waiting.status, phase="Failed"))
    assert refused_for(ended) is None
    assert refused_for(move()) is None


def test_migrations_rank_by_priority_age_and_name() -> None:
    """An unknown priority comes last."""
    priorities = ("system-critical", "user-triggered", "system-maintenance", "another release's", None)
    [critical, user, upkeep, unknown, none] = [
        move(f"m-{9 - number}", priority=priority) for number, priority in enumerate(priorities)
    ]
    wanted = [critical, user, upkeep, none, unknown]
    assert sorted([none, unknown, upkeep, user, critical], key=lambda item: item.rank) == wanted
