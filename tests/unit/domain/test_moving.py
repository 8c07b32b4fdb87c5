"""Migrations that have claimed their VM: every phase, and all that can befall them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain.migration.decide import decide
from controller.domain.migration.phases import GUESS, Reason, downtime
from controller.domain.migration.plan import ClaimVM, ConfirmClaimLost, ConfirmVMGone, Plan, View, WriteMigration
from controller.domain.objects import Claim, MigrationStatus, VirtualMachine
from controller.domain.vm import status
from controller.kube import times
from controller.kube.kinds import Pod
from controller.kube.meta import Condition
from tests.unit.domain.builders import NOW, POLICY, pod, running
from tests.unit.domain.moves import (
    CLAIM,
    SILENT,
    at,
    claimed,
    decided,
    move,
    on_node_1,
    told,
    under_way,
    with_metadata,
    written,
)

ROLLED_BACK = msgspec.structs.replace(CLAIM, rollback=True)
PHASES = ["Pending", "Terminating", "Scheduling", "Starting"]
REFUSED = Condition(type=status.READY, status="False", reason=status.FAILED_CREATE, message="exceeded quota")
SPOILED = Condition(type=status.INVALID_SPEC, status="True")
OWNER = on_node_1()
SOURCE = pod(OWNER, 0, phase="Running", node="kwok-node-1")
GOING = pod(OWNER, 0, phase="Running", node="kwok-node-1", terminating=True)
FOUND = pod(OWNER, 1, node="kwok-node-2")
ARRIVED = pod(OWNER, 1, phase="Running", node="kwok-node-2")

# What is seen of the VM and its pods, and what becomes of a migration that has claimed it, whatever its phase was.
SEEN: dict[str, tuple[VirtualMachine, tuple[Pod, ...], str | None, Reason | None]] = {
    "the VM reconciler has its turn": (claimed(0), (SOURCE,), None, None),
    "the claimed life lost its pod, and can have none": (told(claimed(0), REFUSED), (), "Scheduling", None),
    "nothing can be made of the spec": (told(claimed(0), SPOILED), (), "Failed", Reason.VM_NOT_RUNNING),
    "nor of that of the next life": (told(claimed(1), SPOILED), (), "Failed", Reason.VM_NOT_RUNNING),
    "the source goes": (claimed(), (GOING,), "Terminating", None),
    "the source goes from a spoiled VM": (told(claimed(), SPOILED), (GOING,), "Terminating", None),
    "the source is gone": (claimed(), (), "Scheduling", None),
    "the target pod is refused": (told(claimed(), REFUSED), (), "Scheduling", None),
    "the target looks for a node": (claimed(), (pod(OWNER, 1),), "Scheduling", None),
    "the target has a node": (claimed(), (FOUND,), "Starting", None),
    "the target has a node, the source is still there": (claimed(), (GOING, FOUND), "Starting", None),
    "the target runs": (claimed(), (ARRIVED,), "Succeeded", None),
    "the target failed": (claimed(), (pod(OWNER, 1, phase="Failed"),), "Failed", Reason.TARGET_FAILED),
    "the target ended": (claimed(), (pod(OWNER, 1, phase="Succeeded"),), "Failed", Reason.TARGET_FAILED),
    "the target was lost": (claimed(2), (), "Failed", Reason.TARGET_LOST),
    "the target was given up": (claimed(2, claim=ROLLED_BACK), (), "Failed", Reason.ROLLED_BACK),
    "the VM was stopped": (claimed(running=False), (FOUND,), "Failed", Reason.VM_STOPPED),
    "the VM was deleted": (claimed(deleted=True), (FOUND,), "Failed", Reason.VM_DELETED),
}


@pytest.mark.parametrize("before", PHASES)
@pytest.mark.parametrize("seen", SEEN)
def test_what_is_seen_gives_the_phase_whatever_it_was_before(before: str, seen: str) -> None:
    """A step that nobody saw is none that is missed."""
    found, pods, phase, reason = SEEN[seen]
    plan = decided(under_way(before), found, *pods)
    if phase is None:
        assert plan == Plan()
        return
    wanted = written(plan)
    assert (wanted.phase, wanted.failure_reason) == (phase, reason)
    assert (ClaimVM(None) in plan.actions) == (phase in ("Failed", "Succeeded"))


@pytest.mark.parametrize("before", PHASES)
@pytest.mark.parametrize("seen", SEEN)
def test_what_is_told_already_is_not_written_again(before: str, seen: str) -> None:
    """Neither while it goes on nor once it has ended."""
    found, pods, phase, _ = SEEN[seen]
    item = under_way(before)
    if phase is not None:
        item = msgspec.structs.replace(item, status=written(decided(item, found, *pods)))
    again = decided(item, found, *pods)
    assert not any(isinstance(action, WriteMigration) for action in again.actions)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_vm_that_is_gone_was_deleted_on_the_way(phase: str) -> None:
    """There is nothing to give back."""
    plan = decided(under_way(phase), None)
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert written(plan).failure_reason == Reason.VM_DELETED


@pytest.mark.parametrize("phase", PHASES[1:])
@pytest.mark.parametrize("claim", [None, Claim(name="m-2", uid="uid-m-2")])
def test_a_claim_that_is_lost_ends_the_migration_once_that_is_certain(phase: str, claim: Claim | None) -> None:
    """The cache may show the VM as it was before the claim; another's claim is left alone."""
    plan = decided(under_way(phase), on_node_1(migration=claim))
    assert [type(action) for action in plan.actions] == [ConfirmClaimLost, WriteMigration]
    assert written(plan).failure_reason == Reason.CLAIM_LOST


@pytest.mark.parametrize("phase", PHASES)
def test_a_vm_that_was_made_anew_is_another(phase: str) -> None:
    """Once a live read agrees."""
    item = under_way(phase)
    item = msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, vm_uid="uid-0"))
    plan = decided(item, on_node_1())
    assert plan.actions[0] == ConfirmVMGone("uid-0")
    assert written(plan).failure_reason == Reason.VM_DELETED


# --- what is told on the way -------------------------------------------------------------------------------------


def test_phases_that_nobody_saw_are_told_with_the_one_that_was() -> None:
    """Each with the time at which it was known to be past; those that were told keep theirs."""
    wanted = written(decided(under_way("Terminating", since=7), claimed(), ARRIVED))
    times_of = [(step.phase, step.phase_transition_timestamp) for step in wanted.phase_transition_timestamps]
    before, now = times.micro_timestamp(at(-7)), times.micro_timestamp(NOW)
    assert times_of == [
        ("Pending", before),
        ("Terminating", before),
        ("Scheduling", now),
        ("Starting", now),
        ("Succeeded", now),
    ]


def test_the_end_says_how_long_the_vm_was_down() -> None:
    """From the moment in which its source's life ended."""
    done = msgspec.structs.replace(
        under_way("Starting"), status=written(decided(under_way("Starting", since=7), claimed(), ARRIVED))
    )
    assert downtime(done) == 7
    assert done.status.target_node == "kwok-node-2"
    assert done.status.message is None


@pytest.mark.parametrize("text", [None, "nan", "inf", "-1", "soon", ""])
def test_what_is_no_number_of_seconds_is_no_downtime(text: str | None) -> None:
    """Somebody else may have written it."""
    assert downtime(move(state={"downtime_seconds": text})) is None


def test_the_scheduler_is_quoted_while_a_target_finds_no_node() -> None:
    """It knows more than whoever guessed that there was room."""
    waits = pod(OWNER, 1, unschedulable="0/3 nodes")
    assert written(decided(under_way("Scheduling"), claimed(), waits)).message == "0/3 nodes"
    assert written(decided(under_way("Scheduling"), claimed(), waits, guessed=True)).message == f"0/3 nodes ({GUESS})"
    assert written(decided(under_way("Scheduling"), claimed(), guessed=True)).message == GUESS


@pytest.mark.parametrize(
    ("source", "more", "message", "again"),
    [
        (GOING, {}, None, 5),
        (with_metadata(GOING, finalizers=("a/b",)), {}, "is held by its finalizers: a/b", 10),
        (GOING, {"source_node": SILENT}, "cannot end: node kwok-node-1 is not ready", 10),
    ],
)
def test_what_keeps_a_source_from_going_is_told(
    source: Pod, more: dict[str, Any], message: str | None, again: float
) -> None:
    """At once, if it is more than that it takes a moment."""
    plan = decided(under_way("Terminating"), claimed(), source, **more)
    found = written(plan) if plan.actions else under_way("Terminating").status
    assert (found.message or "").endswith(message or "")
    assert (found.message is None) == (message is None)
    assert plan.requeue_after == again


@pytest.mark.parametrize(("source", "message"), [(GOING, "still terminating"), (SOURCE, "still to be deleted")])
def test_a_source_that_takes_long_to_go_is_told_of(source: Pod, message: str) -> None:
    """After five seconds."""
    early = decided(under_way("Terminating", since=4.9), claimed(), source)
    late = written(decided(under_way("Terminating", since=5), claimed(), source))
    assert all(action.status.message is None for action in early.actions if isinstance(action, WriteMigration))
    assert (late.message or "").endswith(message)


# --- limits ------------------------------------------------------------------------------------------------------


def test_a_target_that_finds_no_node_in_time_is_rolled_back_once() -> None:
    """The VM reconciler makes a pod of it that may go anywhere."""
    item, waits = under_way("Scheduling", since=60, unschedulable_timeout_seconds=60), pod(OWNER, 1)
    assert ClaimVM(ROLLED_BACK) in decided(item, claimed(), waits).actions
    assert not decided(item, claimed(claim=ROLLED_BACK), waits).claims
    early = decided(under_way("Scheduling", since=59, unschedulable_timeout_seconds=60), claimed(), waits)
    assert not early.claims
    assert early.requeue_after == 1


@pytest.mark.parametrize(
    ("found", "pods", "more", "words"),
    [
        (claimed(), (FOUND,), {}, "did not start in time; the VM is down until it does, on node kwok-node-2"),
        (claimed(), (), {}, "was not created in time; VM vm-1 is down until a pod of it can be created"),
        (told(claimed(), REFUSED), (), {}, "(exceeded quota); VM vm-1 is down until a pod of it can be created"),
        (claimed(), (GOING,), {}, "is still terminating; VM vm-1 is down until that pod is gone"),
        (claimed(), (GOING,), {"source_node": SILENT}, "kwok-node-1 is back, tainted"),
    ],
)
def test_a_migration_that_is_not_complete_in_time_fails(
    found: VirtualMachine, pods: tuple[Pod, ...], more: dict[str, Any], words: str
) -> None:
    """And says until when the VM is down."""
    late = under_way("Terminating", since=90, completion_timeout_seconds=90)
    plan = decided(late, found, *pods, **more)
    assert written(plan).failure_reason == Reason.COMPLETION_TIMEOUT
    assert words in (written(plan).message or "")
    assert plan.actions[-1] == ClaimVM(None)


@pytest.mark.parametrize(("found", "pods"), [(claimed(), (FOUND,)), (claimed(), ()), (claimed(), (GOING,))])
def test_until_then_it_is_looked_at_again_in_time(found: VirtualMachine, pods: tuple[Pod, ...]) -> None:
    """Even if nothing happens."""
    plan = decided(under_way("Terminating", since=88, completion_timeout_seconds=90), found, *pods)
    assert plan.requeue_after == 2


# --- cancelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "pods", "phase", "claim", "words"),
    [
        (claimed(0), (SOURCE,), "Failed", None, "before its source was deleted"),
        (claimed(), (GOING,), "Terminating", ROLLED_BACK, "may start on any node, once pod"),
        (claimed(), (), "Scheduling", ROLLED_BACK, "may start on any node"),
        (claimed(), (pod(OWNER, 1),), "Scheduling", ROLLED_BACK, "may start on any node"),
        (claimed(), (FOUND,), "Failed", None, "goes on with pod"),
        (claimed(), (ARRIVED,), "Succeeded", None, ""),
        (claimed(claim=ROLLED_BACK), (ARRIVED,), "Failed", None, "goes on with pod"),
        (claimed(claim=ROLLED_BACK), (pod(OWNER, 1),), "Scheduling", CLAIM, "may start on any node"),
        (claimed(2, claim=ROLLED_BACK), (), "Failed", None, "may start on any node"),
        (told(claimed(), SPOILED), (), "Failed", None, "may start on any node"),
    ],
)
def test_a_migration_that_is_cancelled_gives_its_vm_back(
    found: VirtualMachine, pods: tuple[Pod, ...], phase: str, claim: Claim | None, words: str
) -> None:
    """As soon as nothing binds it; one that has moved has moved. CLAIM stands for a claim that stays as it is."""
    plan = decided(under_way("Terminating", cancel=True), found, *pods)
    assert written(plan).phase == phase
    assert words in (written(plan).message or "")
    changes = [action.claim for action in plan.actions if isinstance(action, ClaimVM)]
    assert changes == ([] if claim is CLAIM else [claim])


def test_a_cancelled_migration_ends_at_its_time_although_its_vm_is_bound() -> None:
    """Whoever waits for it waits no longer than for any other."""
    late = under_way("Terminating", since=90, cancel=True, completion_timeout_seconds=90)
    plan = decided(late, claimed(), GOING)
    assert written(plan).failure_reason == Reason.CANCELLED
    assert plan.actions[-1] == ClaimVM(None)


# --- ended -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_migration_that_has_ended_gives_its_claim_back(phase: str) -> None:
    """The write before may have been the last that its process did; another's claim is left alone."""
    ended = move(state={"phase": phase, "vm_uid": "uid-1"})
    assert decided(ended, claimed()) == Plan((ClaimVM(None),))
    assert decided(ended, claimed(claim=Claim(name="m-2", uid="uid-m-2"))) == Plan()


def test_an_edit_of_a_migration_that_has_ended_is_noted() -> None:
    """Or whoever waits for a status of the newest generation would wait for ever."""
    stale = move(state={"phase": "Failed", "observed_generation": 7})
    assert written(decided(stale, None)) == MigrationStatus(phase="Failed", observed_generation=1)
    assert decided(move(state={"phase": "Failed"}), None) == Plan()


def test_the_pods_of_a_namesake_are_none_of_the_vms() -> None:
    """Whatever life they count."""
    another = on_node_1()
    another = msgspec.structs.replace(another, metadata=msgspec.structs.replace(another.metadata, uid="uid-0"))
    plan = decide(View(under_way("Terminating"), claimed(), (running(another, 1),), NOW), POLICY)
    assert isinstance(plan, Plan)
    assert written(plan).phase == "Scheduling"
