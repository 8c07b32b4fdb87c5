"""Migrations before their claim: what makes them wait or fail, and what has to be known first."""

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
from controller.domain.objects import Claim
from controller.domain.vm import launcher
from controller.domain.vm.launcher import Placement
from controller.kube.kinds import Node, NodeSpec
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import NOW, POLICY, pod, vm
from tests.unit.domain.moves import CLAIM, SILENT, YES, asked, at, decided, failed, move, on_node_1, written

# --- the wait after failures -------------------------------------------------------------------------------------


def test_without_failures_nothing_waits() -> None:
    """Neither a first migration nor one after a success."""
    assert backoff((), "uid-1", NOW) is None
    success = failed("m-2", at(-5), phase="Succeeded", failure_reason=None)
    assert backoff((failed("m-1", at(-6)), success), "uid-1", NOW) is None


def test_the_wait_doubles_with_each_failure_and_counts_from_the_last() -> None:
    """20 s, 40 s, 80 s."""
    history = tuple(failed(f"m-{number}", at(number - 10)) for number in range(3))
    found = backoff(history, "uid-1", NOW)
    assert found == Backoff(failures=3, seconds=80, until=at(72), left=72)


def test_a_wait_that_is_over_is_none() -> None:
    """To the second."""
    assert backoff((failed("m-1", at(-20)),), "uid-1", NOW) is None


@pytest.mark.parametrize("reason", ["TargetNotFound", "NoSuitableNode", "NoRoom", "VMNotRunning", "Cancelled"])
def test_a_failure_that_touched_no_vm_makes_none_wait(reason: str) -> None:
    """Five typos cost nothing."""
    refused = tuple(failed(f"m-{number}", at(-1), reason, start_timestamp=None) for number in range(5))
    assert backoff(refused, "uid-1", NOW) is None


def test_a_cancelled_migration_makes_none_wait_wherever_it_was() -> None:
    """Who cancels wants what comes next."""
    assert backoff((failed("m-1", at(-1), "Cancelled"),), "uid-1", NOW) is None


@pytest.mark.parametrize("uid", ["uid-of-a-namesake", None])
def test_the_failures_of_another_vm_make_none_wait(uid: str | None) -> None:
    """One that had the name before, or that nobody wrote down."""
    assert backoff((failed("m-1", at(-1), vm_uid=uid),), "uid-1", NOW) is None


def test_a_migration_that_waits_after_failures_says_until_when() -> None:
    """In words that stay the same while it waits."""
    plan = decided(move(), on_node_1(), history=(failed("m-0", at(-5)), failed("m-1", at(-1))))
    told = written(plan)
    assert told.message == (
        "The last 2 migrations of VM vm-1 failed after the VM was claimed; "
        "the next waits 40 s after that, until 2026-01-15T10:30:39Z"
    )
    assert told.conditions[0].reason == Reason.BACKOFF
    assert plan.requeue_after == 39


# --- what is refused before anything is asked ----------------------------------------------------------------------


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
def test_what_the_vm_forbids_fails_without_a_claim(machine: Any, spec: dict[str, Any], reason: Reason) -> None:
    """And nothing else is asked first."""
    plan = decided(move(**spec), machine)
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", reason)


def test_a_migration_whose_spec_was_not_read_whole_fails_and_moves_nothing() -> None:
    """The default that stands for its target is anywhere, which nobody asked for."""
    item = msgspec.structs.replace(move(), unreadable=("spec.targetNode: Expected `str | null`, got `object`",))
    plan = decided(item, on_node_1())
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert (written(plan).phase, written(plan).failure_reason) == ("Failed", Reason.INVALID_SPEC)
    assert written(plan).message == item.unreadable[0]


def test_a_vm_whose_ratios_are_none_is_not_moved() -> None:
    """No pod could be made of it."""
    plan = decided(move(), vm(cpu="plenty", status=on_node_1().status))
    assert written(plan).failure_reason == Reason.VM_NOT_RUNNING


@pytest.mark.parametrize(
    "gone", [{"terminating": True}, {"told": (Condition(type="DisruptionTarget", status="True"),)}]
)
def test_a_pod_that_goes_already_is_not_moved(gone: dict[str, Any]) -> None:
    """Whoever evicts it, or deletes it, was first."""
    owner = on_node_1()
    plan = decided(move(), owner, pod(owner, uid=owner.status.pod_uid, node="kwok-node-1", **gone))
    assert written(plan).failure_reason == Reason.VM_NOT_RUNNING


def test_a_vm_that_was_seen_and_is_gone_was_deleted() -> None:
    """One that never was is another matter."""
    plan = decided(move(state={"vm_uid": "uid-1"}), None)
    assert written(plan).failure_reason == Reason.VM_DELETED


# --- what has to be known first ----------------------------------------------------------------------------------


def test_what_costs_least_is_asked_first() -> None:
    """A slot, then a node, then the API server, all about the same claim."""
    slot = asked(move(), on_node_1(), Answers())
    node = asked(move(), on_node_1(), Answers(slot=True))
    dry_run = asked(move(), on_node_1(), Answers(slot=True, node="kwok-node-2"))
    assert isinstance(slot, AskSlot)
    assert isinstance(node, AskNode)
    assert isinstance(dry_run, AskDryRun)
    assert slot.demand == node.demand == demand(dry_run.claim, on_node_1(), POLICY)
    assert dry_run.claim == CLAIM


def test_a_claim_follows_when_everything_is_known() -> None:
    """It names the node where room is held; the migration must still be wanted by then."""
    reserved = msgspec.structs.replace(CLAIM, reserved_node="kwok-node-2")
    plan = asked(move(), on_node_1(), YES)
    assert plan == Plan((ConfirmWanted(), ClaimVM(reserved)))
    assert isinstance(plan, Plan)
    assert plan.claims


def test_who_may_not_know_the_nodes_holds_no_room() -> None:
    """The scheduler decides."""
    assert asked(move(), on_node_1(), Answers(slot=True, node="", accepted=True)) == Plan(
        (ConfirmWanted(), ClaimVM(CLAIM))
    )


def test_the_target_is_placed_by_the_claim_alone() -> None:
    """Preflight judges by what the pod that is made will ask for."""
    item = move(target_node="kwok-node-3", added_node_selector={"zone": "b", "disk": "fast"})
    found = asked(item, on_node_1(), Answers())
    assert isinstance(found, AskSlot)
    assert found.demand.placement == Placement(
        node="kwok-node-3", avoid="kwok-node-1", selector=(("disk", "fast"), ("zone", "b"))
    )
    claim = asked(item, on_node_1(), Answers(slot=True, node=""))
    assert isinstance(claim, AskDryRun)
    assert (
        launcher.target(on_node_1(), claim.claim, POLICY)["spec"]["affinity"]
        == found.demand.placement.affinity()["affinity"]
    )


def test_an_answer_that_is_not_there_yet_is_waited_for_in_silence() -> None:
    """Nothing is written meanwhile."""
    assert asked(move(), on_node_1(), Answers(slot=True, later=2.5)) == Plan(requeue_after=2.5)


@pytest.mark.parametrize(
    ("target", "known", "reason"),
    [
        (None, True, Reason.TARGET_NOT_FOUND),
        (Node(ObjectMeta(name="n"), NodeSpec(unschedulable=True)), True, Reason.TARGET_UNSCHEDULABLE),
        (Node(ObjectMeta(name="n")), True, None),
        (None, False, None),
    ],
)
def test_a_wrong_target_fails_before_a_slot_is_asked_for(
    *, target: Node | None, known: bool, reason: Reason | None
) -> None:
    """Unless nobody may know the nodes."""
    found = asked(move(target_node="n"), on_node_1(), Answers(), target_node=target, nodes_known=known)
    assert (written(found).failure_reason if isinstance(found, Plan) else None) == reason


def test_a_wrong_target_fails_although_another_refusal_may_pass() -> None:
    """That would only be known later."""
    lately = Answers(refused=Refused(Reason.QUOTA_EXCEEDED, "no", for_good=False))
    found = asked(move(target_node="n"), on_node_1(), lately, nodes_known=True)
    assert isinstance(found, Plan)
    assert written(found).failure_reason == Reason.TARGET_NOT_FOUND


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_for_good_fails_at_once(reason: Reason) -> None:
    """In the words of whoever refuses."""
    plan = asked(move(), on_node_1(), Answers(refused=Refused(reason, "no", for_good=True)))
    assert isinstance(plan, Plan)
    assert (written(plan).phase, written(plan).failure_reason, written(plan).message) == ("Failed", reason, "no")
    assert not plan.claims


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_that_may_pass_waits_no_longer_than_the_migration_may(reason: Reason) -> None:
    """Counted for each reason from when it was first seen; a turn is waited for without end."""
    item = move(unschedulable_timeout_seconds=60)
    answers = Answers(refused=Refused(reason, "no", for_good=False))
    told = []
    for seconds in (59, 60):
        plan = asked(item, on_node_1(), answers, refused_since={reason: at(-seconds)})
        assert isinstance(plan, Plan)
        told.append(written(plan).phase)
        assert written(plan).conditions[0].reason == reason
    assert told == ["Pending", "Failed" if reason in BOUNDED else "Pending"]


@pytest.mark.parametrize(("waited", "again"), [(0, 5), (57, 3)])
def test_a_refusal_is_looked_at_again_in_time(waited: int, again: float) -> None:
    """After a few seconds, or when its time is over."""
    refused = Answers(refused=Refused(Reason.NO_ROOM, "no", for_good=False))
    since = {Reason.NO_ROOM: at(-waited)}
    plan = asked(move(unschedulable_timeout_seconds=60), on_node_1(), refused, refused_since=since)
    assert isinstance(plan, Plan)
    assert plan.requeue_after == again


def test_a_source_whose_node_is_silent_is_waited_for() -> None:
    """Nobody would finish the deletion of its pod."""
    plan = decided(move(), on_node_1(), source_node=SILENT)
    assert (written(plan).phase, written(plan).conditions[0].reason) == ("Pending", Reason.SOURCE_NODE_NOT_READY)
    assert plan.requeue_after == 10


def test_the_reason_for_which_one_waits_is_read_from_its_status() -> None:
    """Only what is bounded in time, and only while it is pending."""
    answers = Answers(refused=Refused(Reason.NO_ROOM, "no", for_good=False))
    plan = asked(move(), on_node_1(), answers)
    assert isinstance(plan, Plan)
    waiting = msgspec.structs.replace(move(), status=written(plan))
    assert refused_for(waiting) is Reason.NO_ROOM
    ended = msgspec.structs.replace(waiting, status=msgspec.structs.replace(waiting.status, phase="Failed"))
    assert refused_for(ended) is None
    assert refused_for(move()) is None


def test_who_goes_first() -> None:
    """By priority, then age, then name; what nobody knows comes last."""
    priorities = ("system-critical", "user-triggered", "system-maintenance", "another release's", None)
    [critical, user, upkeep, unknown, none] = [
        move(f"m-{9 - number}", priority=priority) for number, priority in enumerate(priorities)
    ]
    wanted = [critical, user, upkeep, none, unknown]
    assert sorted([none, unknown, upkeep, user, critical], key=lambda item: item.rank) == wanted
