"""Migrations that have claimed their VM: every phase, and every way to end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.migration import phases
from controller.domain.migration.decide import decide
from controller.domain.migration.events import transitions
from controller.domain.migration.phases import GUESS, Reason, downtime
from controller.domain.migration.plan import ClaimVM, ConfirmClaimLost, ConfirmVMGone, Plan, View, WriteMigration
from controller.domain.objects import Claim, MigrationStatus, PhaseTime, VirtualMachine
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
    having,
    in_phase,
    move,
    on_node_1,
    with_metadata,
    written,
)

ROLLED_BACK = msgspec.structs.replace(CLAIM, rollback=True)
PHASES = ["Pending", "Terminating", "Scheduling", "Starting"]
REFUSED = Condition(type=status.READY, status="False", reason=status.FAILED_CREATE, message="exceeded quota")
SPOILED = Condition(type=status.INVALID_SPEC, status="True")
OWNER = on_node_1()
SOURCE = pod(OWNER, 0, phase="Running", node="kwok-node-1")
ENDING = pod(OWNER, 0, phase="Running", node="kwok-node-1", terminating=True)
PLACED = pod(OWNER, 1, node="kwok-node-2")
RUNS = pod(OWNER, 1, phase="Running", node="kwok-node-2")

# The VM and its pods, and the phase of a migration that has claimed it, whatever its phase was before.
CASES: dict[str, tuple[VirtualMachine, tuple[Pod, ...], str | None, Reason | None]] = {
    "the VM reconciler acts next": (claimed(0), (SOURCE,), None, None),
    "the claimed incarnation has no pod, and gets none": (having(claimed(0), REFUSED), (), "Scheduling", None),
    "the spec is invalid": (having(claimed(0), SPOILED), (), "Failed", Reason.VM_NOT_RUNNING),
    "the spec is invalid in the next incarnation": (having(claimed(1), SPOILED), (), "Failed", Reason.VM_NOT_RUNNING),
    "the source terminates": (claimed(), (ENDING,), "Terminating", None),
    "the source of an invalid VM terminates": (having(claimed(), SPOILED), (ENDING,), "Terminating", None),
    "the source is deleted": (claimed(), (), "Scheduling", None),
    "the target pod is refused": (having(claimed(), REFUSED), (), "Scheduling", None),
    "the target waits for a node": (claimed(), (pod(OWNER, 1),), "Scheduling", None),
    "the target has a node": (claimed(), (PLACED,), "Starting", None),
    "the target has a node, the source terminates": (claimed(), (ENDING, PLACED), "Starting", None),
    "the target runs": (claimed(), (RUNS,), "Succeeded", None),
    "the target failed": (claimed(), (pod(OWNER, 1, phase="Failed"),), "Failed", Reason.TARGET_FAILED),
    "the target ended": (claimed(), (pod(OWNER, 1, phase="Succeeded"),), "Failed", Reason.TARGET_FAILED),
    "the target was lost": (claimed(2), (), "Failed", Reason.TARGET_LOST),
    "the target was rolled back": (claimed(2, claim=ROLLED_BACK), (), "Failed", Reason.ROLLED_BACK),
    "the VM was stopped": (claimed(running=False), (PLACED,), "Failed", Reason.VM_STOPPED),
    "the VM was deleted": (claimed(deleted=True), (PLACED,), "Failed", Reason.VM_DELETED),
}


@pytest.mark.parametrize("before", PHASES)
@pytest.mark.parametrize("case", CASES)
def test_the_phase_follows_from_the_vm_and_its_pods_alone(before: str, case: str) -> None:
    """Whatever it was before: a missed step does not matter."""
    found, pods, phase, reason = CASES[case]
    plan = decided(in_phase(before), found, *pods)
    if phase is None:
        assert plan == Plan()
        return
    wanted = written(plan)
    assert (wanted.phase, wanted.failure_reason) == (phase, reason)
    assert (ClaimVM(None) in plan.actions) == (phase in ("Failed", "Succeeded"))


@pytest.mark.parametrize("before", PHASES)
@pytest.mark.parametrize("case", CASES)
def test_an_unchanged_status_is_not_written_again(before: str, case: str) -> None:
    """Neither in progress nor at the end."""
    found, pods, phase, _ = CASES[case]
    item = in_phase(before)
    if phase is not None:
        item = msgspec.structs.replace(item, status=written(decided(item, found, *pods)))
    again = decided(item, found, *pods)
    assert not any(isinstance(action, WriteMigration) for action in again.actions)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_migration_fails_when_its_vm_no_longer_exists(phase: str) -> None:
    """There is no claim to remove."""
    plan = decided(in_phase(phase), None)
    assert [type(action) for action in plan.actions] == [WriteMigration]
    assert written(plan).failure_reason == Reason.VM_DELETED


@pytest.mark.parametrize("phase", PHASES[1:])
@pytest.mark.parametrize("claim", [None, Claim(name="m-2", uid="uid-m-2")])
def test_a_lost_claim_fails_the_migration_after_a_live_read(phase: str, claim: Claim | None) -> None:
    """The cache may show the VM as before the claim; the claim of another migration is not touched."""
    plan = decided(in_phase(phase), on_node_1(migration=claim))
    assert [type(action) for action in plan.actions] == [ConfirmClaimLost, WriteMigration]
    assert written(plan).failure_reason == Reason.CLAIM_LOST


@pytest.mark.parametrize("phase", PHASES)
def test_a_migration_fails_when_its_vm_was_replaced_by_a_namesake(phase: str) -> None:
    """After a live read."""
    item = in_phase(phase)
    item = msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, vm_uid="uid-0"))
    plan = decided(item, on_node_1())
    assert plan.actions[0] == ConfirmVMGone("uid-0")
    assert written(plan).failure_reason == Reason.VM_DELETED


# --- published in progress --------------------------------------------------------------------------------------


def test_passed_phases_are_published_with_the_one_that_was_observed() -> None:
    """With the time of this write; published phases keep theirs."""
    wanted = written(decided(in_phase("Terminating", since=7), claimed(), RUNS))
    times_of = [(step.phase, step.phase_transition_timestamp) for step in wanted.phase_transition_timestamps]
    before, now = times.micro_timestamp(at(-7)), times.micro_timestamp(NOW)
    assert times_of == [
        ("Pending", before),
        ("Terminating", before),
        ("Scheduling", now),
        ("Starting", now),
        ("Succeeded", now),
    ]


def test_success_publishes_the_downtime() -> None:
    """From the end of the source's incarnation."""
    done = msgspec.structs.replace(
        in_phase("Starting"), status=written(decided(in_phase("Starting", since=7), claimed(), RUNS))
    )
    assert downtime(done) == 7
    assert done.status.target_node == "kwok-node-2"
    assert done.status.message is None


def test_a_target_that_depends_on_preemption_says_so_from_its_claim_to_its_end() -> None:
    """In a condition, which has an Event when it begins, and only then."""
    claim = msgspec.structs.replace(CLAIM, reserved_node="kwok-node-2", by_preemption=True)
    message = "Preflight found room on node kwok-node-2 by preemption of pods of lower priority"
    item = move(state={"vm_uid": "uid-1"})
    target = pod(OWNER, 1, phase="Running", node="kwok-node-2")
    for pods, noted in (((pod(OWNER, 0, terminating=True),), ["RoomFound"]), ((), []), ((target,), [])):
        status = written(decided(item, claimed(claim=claim), *pods))
        assert [found.type for found in status.conditions] == ["Completed", "RoomFound"]
        assert phases.room_found(status) == message
        assert [event.reason for event in transitions(item, status) if event.note == message] == noted
        item = msgspec.structs.replace(item, status=status)
    assert item.status.phase == "Succeeded"


def test_a_target_on_plain_room_says_nothing_of_it() -> None:
    """Neither while it moves nor at its end."""
    claim = msgspec.structs.replace(CLAIM, reserved_node="kwok-node-2")
    status = written(decided(in_phase("Scheduling"), claimed(claim=claim), pod(OWNER, 1)))
    assert [found.type for found in status.conditions] == ["Completed"]


@pytest.mark.parametrize("text", [None, "nan", "inf", "-1", "soon", ""])
def test_a_malformed_downtime_is_none(text: str | None) -> None:
    """Another client may have written it."""
    assert downtime(move(state={"downtime_seconds": text})) is None


def test_the_message_quotes_the_scheduler_while_a_target_has_no_node() -> None:
    """It knows all pods, which preflight may not."""
    waits = pod(OWNER, 1, unschedulable="0/3 nodes")
    assert written(decided(in_phase("Scheduling"), claimed(), waits)).message == "0/3 nodes"
    assert written(decided(in_phase("Scheduling"), claimed(), waits, guessed=True)).message == f"0/3 nodes ({GUESS})"
    assert written(decided(in_phase("Scheduling"), claimed(), guessed=True)).message == GUESS


@pytest.mark.parametrize(
    ("source", "more", "message", "again"),
    [
        (ENDING, {}, None, 5),
        (with_metadata(ENDING, finalizers=("a/b",)), {}, "is held by its finalizers: a/b", 10),
        (ENDING, {"source_node": SILENT}, "cannot end: node kwok-node-1 is not ready", 10),
    ],
)
def test_the_message_names_what_blocks_the_deletion_of_the_source(
    source: Pod, more: dict[str, Any], message: str | None, again: float
) -> None:
    """At once, unless it is only the usual grace period."""
    plan = decided(in_phase("Terminating"), claimed(), source, **more)
    found = written(plan) if plan.actions else in_phase("Terminating").status
    assert (found.message or "").endswith(message or "")
    assert (found.message is None) == (message is None)
    assert plan.requeue_after == again


@pytest.mark.parametrize(("source", "message"), [(ENDING, "still terminating"), (SOURCE, "still to be deleted")])
def test_a_source_that_terminates_for_five_seconds_is_reported(source: Pod, message: str) -> None:
    """Not before."""
    early = decided(in_phase("Terminating", since=4.9), claimed(), source)
    late = written(decided(in_phase("Terminating", since=5), claimed(), source))
    assert all(action.status.message is None for action in early.actions if isinstance(action, WriteMigration))
    assert (late.message or "").endswith(message)


# --- limits ------------------------------------------------------------------------------------------------------


def test_a_target_without_a_node_is_rolled_back_once_at_its_timeout() -> None:
    """The VM reconciler then creates a pod without constraints."""
    item, waits = in_phase("Scheduling", since=60, unschedulable_timeout_seconds=60), pod(OWNER, 1)
    assert ClaimVM(ROLLED_BACK) in decided(item, claimed(), waits).actions
    assert not decided(item, claimed(claim=ROLLED_BACK), waits).claims
    early = decided(in_phase("Scheduling", since=59, unschedulable_timeout_seconds=60), claimed(), waits)
    assert not early.claims
    assert early.requeue_after == 1


@pytest.mark.parametrize(
    ("found", "pods", "more", "words"),
    [
        (claimed(), (PLACED,), {}, "did not start in time; the VM is down until it does, on node kwok-node-2"),
        (claimed(), (), {}, "was not created in time; VM vm-1 is down until a pod of it can be created"),
        (
            having(claimed(), REFUSED),
            (),
            {},
            "(exceeded quota); VM vm-1 is down until a pod of it can be created",
        ),
        (claimed(), (ENDING,), {}, "is still terminating; VM vm-1 is down until that pod is gone"),
        (claimed(), (ENDING,), {"source_node": SILENT}, "kwok-node-1 is back, tainted"),
    ],
)
def test_a_migration_fails_at_its_completion_timeout(
    found: VirtualMachine, pods: tuple[Pod, ...], more: dict[str, Any], words: str
) -> None:
    """The message says until when the VM is down."""
    late = in_phase("Terminating", since=90, completion_timeout_seconds=90)
    plan = decided(late, found, *pods, **more)
    assert written(plan).failure_reason == Reason.COMPLETION_TIMEOUT
    assert words in (written(plan).message or "")
    assert plan.actions[-1] == ClaimVM(None)


@pytest.mark.parametrize(("found", "pods"), [(claimed(), (PLACED,)), (claimed(), ()), (claimed(), (ENDING,))])
def test_a_migration_is_reconciled_again_at_its_completion_timeout(
    found: VirtualMachine, pods: tuple[Pod, ...]
) -> None:
    """Without an event."""
    plan = decided(in_phase("Terminating", since=88, completion_timeout_seconds=90), found, *pods)
    assert plan.requeue_after == 2


# --- cancelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "pods", "phase", "claim", "words"),
    [
        (claimed(0), (SOURCE,), "Failed", None, "before its source was deleted"),
        (claimed(), (ENDING,), "Terminating", ROLLED_BACK, "may start on any node, once pod"),
        (claimed(), (), "Scheduling", ROLLED_BACK, "may start on any node"),
        (claimed(), (pod(OWNER, 1),), "Scheduling", ROLLED_BACK, "may start on any node"),
        (claimed(), (PLACED,), "Failed", None, "goes on with pod"),
        (claimed(), (RUNS,), "Succeeded", None, ""),
        (claimed(claim=ROLLED_BACK), (RUNS,), "Failed", None, "goes on with pod"),
        (claimed(claim=ROLLED_BACK), (pod(OWNER, 1),), "Scheduling", CLAIM, "may start on any node"),
        (claimed(2, claim=ROLLED_BACK), (), "Failed", None, "may start on any node"),
        (having(claimed(), SPOILED), (), "Failed", None, "may start on any node"),
    ],
)
def test_a_cancelled_migration_releases_its_vm(
    found: VirtualMachine, pods: tuple[Pod, ...], phase: str, claim: Claim | None, words: str
) -> None:
    """As soon as no constraint is left; one whose target runs succeeds. CLAIM stands for an unchanged claim."""
    plan = decided(in_phase("Terminating", cancel=True), found, *pods)
    assert written(plan).phase == phase
    assert words in (written(plan).message or "")
    changes = [action.claim for action in plan.actions if isinstance(action, ClaimVM)]
    assert changes == ([] if claim is CLAIM else [claim])


def test_a_cancelled_migration_ends_at_its_completion_timeout() -> None:
    """Although its VM is still bound."""
    late = in_phase("Terminating", since=90, cancel=True, completion_timeout_seconds=90)
    plan = decided(late, claimed(), ENDING)
    assert written(plan).failure_reason == Reason.CANCELLED
    assert plan.actions[-1] == ClaimVM(None)


# --- ended -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_migration_removes_its_claim(phase: str) -> None:
    """Its process may have died after the last write; the claim of another migration is not touched."""
    ended = move(state={"phase": phase, "vm_uid": "uid-1"})
    assert decided(ended, claimed()) == Plan((ClaimVM(None),))
    assert decided(ended, claimed(claim=Claim(name="m-2", uid="uid-m-2"))) == Plan()


def test_an_edit_of_a_finished_migration_publishes_its_generation() -> None:
    """Otherwise a client would wait for it for ever."""
    stale = move(state={"phase": "Failed", "observed_generation": 7})
    assert written(decided(stale, None)) == MigrationStatus(phase="Failed", observed_generation=1)
    assert decided(move(state={"phase": "Failed"}), None) == Plan()


def test_a_namesakes_pod_is_not_the_target() -> None:
    """Although it has the target's incarnation."""
    another = on_node_1()
    another = msgspec.structs.replace(another, metadata=msgspec.structs.replace(another.metadata, uid="uid-0"))
    plan = decide(View(in_phase("Terminating"), claimed(), (running(another, 1),), NOW), POLICY)
    assert isinstance(plan, Plan)
    assert written(plan).phase == "Scheduling"


def _booting_target(seconds: int) -> tuple[VirtualMachine, Pod]:
    """A claimed VM whose target has started now, with a boot time."""
    machine = claimed()
    target = pod(machine, 1, phase="Running", node="kwok-node-2")
    annotations = {**target.metadata.annotations, names.BOOT_TIME: f"{seconds}s"}
    return machine, msgspec.structs.replace(
        target,
        metadata=msgspec.structs.replace(target.metadata, annotations=annotations),
        status=msgspec.structs.replace(target.status, start_time=times.timestamp(NOW)),
    )


def test_a_migration_ends_when_its_targets_guest_has_booted() -> None:
    """The downtime counts the boot, and the migration is reconciled again at its end."""
    machine, target = _booting_target(90)
    item = move(state={"start_timestamp": times.micro_timestamp(NOW), "phase": "Starting"})
    waiting = decided(item, machine, target, now=at(30))
    assert (written(waiting).phase, waiting.requeue_after) == ("Starting", 60)
    done = written(decided(item, machine, target, now=at(90)))
    assert (done.phase, done.downtime_seconds) == ("Succeeded", "90.000")


def test_the_completion_timeout_does_not_count_the_boot() -> None:
    """A boot that is longer than the timeout is waited for; a target that ends it late is not."""
    machine, target = _booting_target(90)
    state = {
        "phase": "Starting",
        "phase_transition_timestamps": (PhaseTime("Terminating", times.micro_timestamp(NOW)),),
    }
    item = move(state=state, completion_timeout_seconds=60)
    assert written(decided(item, machine, target, now=at(80))).phase == "Starting"
    not_started = msgspec.structs.replace(
        target, status=msgspec.structs.replace(target.status, phase="Pending", start_time=None)
    )
    late = written(decided(item, machine, not_started, now=at(151)))
    assert (late.phase, late.failure_reason) == ("Failed", "CompletionTimeout")
