"""The copying of a live migration: its checkpoints, its end, a guest that is paused, and post-copy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain.copying.model import Checkpoint, Limits, Mode, Workload
from controller.domain.copying.record import Copying
from controller.domain.migration.copying import Progress
from controller.domain.migration.decide import decide as decide_migration
from controller.domain.migration.plan import ClaimVM, ConfirmPodGone, HandOver, Plan, View
from controller.domain.objects import Claim, PhaseTime, VirtualMachine
from controller.domain.objects import HandOver as Over
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import Circumstances, DeletePod, WriteStatus
from controller.domain.vm.plan import ConfirmPodGone as ConfirmPod
from controller.domain.vm.plan import Plan as VMPlan
from controller.domain.vm.plan import View as VMView
from controller.kube import times
from controller.kube.kinds import Node, NodeStatus, Pod
from controller.kube.meta import Condition, ObjectMeta
from tests.unit.domain.builders import NOW, POLICY, condition, pod, published, settled, vm
from tests.unit.domain.moves import at, decided, move, written

CLAIM = Claim(
    name="m-1", uid="uid-m-1", source_node="kwok-node-1", source_incarnation=0, strategy="Live", target_incarnation=1
)
POST_COPY = msgspec.structs.replace(CLAIM, mode="PostCopy")
SOURCE = pod(vm(), 0, phase="Running", node="kwok-node-1")
TARGET = pod(vm(), 1, phase="Running", node="kwok-node-2")
BEGUN = Checkpoint(round_bytes=1000.0, wait=0.25)
RECORD = Copying(
    Workload(1000.0, 10.0, 100.0, jitter=0.0),
    Limits(150.0, progress_timeout=60.0, max_downtime=0.3),
    BEGUN,
    times.micro_timestamp(NOW),
)


def moving(claim: Claim = CLAIM, *, incarnation: int = 0) -> VirtualMachine:
    """A VM that moves live, and has the pod of this number."""
    base = settled(vm(), SOURCE if incarnation == 0 else TARGET)
    status = msgspec.structs.replace(
        base.status, incarnation=incarnation, migration=claim, last_incarnation=claim.target
    )
    return msgspec.structs.replace(base, status=status)


def copies(*, written: float = 0.0, **state: Any) -> Any:
    """A migration that has copied since NOW, whose checkpoint is of so many seconds later."""
    step = PhaseTime("Running", times.micro_timestamp(NOW))
    record = msgspec.structs.replace(RECORD, timestamp=times.micro_timestamp(at(written)))
    given = {
        "phase": "Running",
        "strategy": "Live",
        "start_timestamp": times.micro_timestamp(NOW),
        "phase_transition_timestamps": (step,),
        "source_node": "kwok-node-1",
        "source_pod": SOURCE.metadata.name,
        "target_node": "kwok-node-2",
        "target_pod": TARGET.metadata.name,
        "copying": record,
        **state,
    }
    return published_before(move(strategy="Live", state=given))


def published_before(item: Any) -> Any:
    """The migration with the status that its phase has when it was published."""
    found = decided(item, moving(), SOURCE, TARGET, progress=Progress(BEGUN), now=NOW)
    writes = [action for action in found.actions if not isinstance(action, ClaimVM)]
    return msgspec.structs.replace(item, status=written(found)) if writes else item


def after(seconds: float, checkpoint: Checkpoint, *pods: Pod, **more: Any) -> Plan:
    """Decide about a move that is so far now."""
    machine = more.pop("machine", moving())
    item = more.pop("item", None) or copies()
    progress = Progress(checkpoint, behind=more.pop("behind", False))
    return decided(item, machine, *(pods or (SOURCE, TARGET)), progress=progress, now=at(seconds), **more)


def far(seconds: float, **more: Any) -> Checkpoint:
    """A checkpoint after so many seconds."""
    return msgspec.structs.replace(
        BEGUN, **{"elapsed": seconds, "sent": 500.0, "round_sent": 500.0, "wait": 0.0, **more}
    )


# --- checkpoints ----------------------------------------------------------------------------------------------


def test_while_memory_is_copied_nothing_is_written_for_thirty_seconds() -> None:
    """The reconciler is told when something is to be decided."""
    found = after(12.0, far(12.0))
    assert (found.actions, found.requeue_after) == ((), 18.0)


def test_a_checkpoint_is_written_every_thirty_seconds() -> None:
    """Of the moment, so that another leader goes on from there."""
    found = after(30.0, far(30.0))
    copied = written(found).copying
    assert copied is not None
    assert (copied.checkpoint, copied.timestamp) == (far(30.0), times.micro_timestamp(at(30)))
    assert (copied.workload, copied.limits) == (RECORD.workload, RECORD.limits)
    assert found.requeue_after == 30.0


@pytest.mark.parametrize("odd", ["", "soon", "2300-01-01T00:00:00Z"])
def test_a_checkpoint_whose_time_is_malformed_is_written_anew(odd: str) -> None:
    """Or the next one would wait for ever."""
    item = copies()
    record = msgspec.structs.replace(RECORD, timestamp=odd)
    item = msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, copying=record))
    copied = written(after(3.0, far(3.0), item=item)).copying
    assert copied is not None
    assert copied.timestamp == times.micro_timestamp(at(3))


def test_a_move_that_takes_many_steps_is_computed_in_several_decisions() -> None:
    """None of them costs more than a bounded number."""
    found = after(50.0, far(20.0), behind=True)
    assert found.actions == ()
    assert 0 < (found.requeue_after or 0) < 0.1


def test_an_edited_record_begins_anew() -> None:
    """Its figures cannot be those of a move."""
    item = copies()
    odd = msgspec.structs.replace(RECORD, bandwidth=-1.0)
    item = msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, copying=odd))
    copied = written(decided(item, moving(), SOURCE, TARGET, now=at(40))).copying
    assert copied is not None
    assert (copied.bandwidth, copied.checkpoint.elapsed, copied.timestamp) == (0.0, 0.0, times.micro_timestamp(at(40)))


# --- the end --------------------------------------------------------------------------------------------------


DONE = far(12.0, mode=Mode.PRE_COPY_DONE, downtime=0.276)


def test_a_vm_is_handed_over_when_its_memory_is_copied() -> None:
    """With the downtime of the model."""
    assert after(12.0, DONE).actions == (HandOver(CLAIM, TARGET, 0.276),)


def test_a_hand_over_waits_for_a_target_that_is_ready() -> None:
    """Its node may report again."""
    unready = pod(vm(), 1, phase="Running", node="kwok-node-2")
    ready = Condition("Ready", "False", last_transition_time=times.timestamp(at(100)))
    unready = msgspec.structs.replace(unready, status=msgspec.structs.replace(unready.status, conditions=(ready,)))
    found = after(112.0, DONE, SOURCE, unready, item=copies(written=100))
    assert written(found).message == f"The hand-over waits: target pod {unready.metadata.name} is not ready"
    assert written(found).phase == "Running"
    assert not found.claims
    assert (found.requeue_after or 0) <= 10


def test_a_silent_node_ends_a_move_only_after_its_own_patience() -> None:
    """Copying may have taken an hour before."""
    at_fault = Condition("Ready", "Unknown", last_transition_time=times.timestamp(at(3600)))
    silent = Node(ObjectMeta(name="kwok-node-2"), status=NodeStatus(conditions=(at_fault,)))
    early = after(3700, DONE, target_node=silent, item=copies(written=3695))
    assert not early.claims
    late = after(3600 + 901, DONE, target_node=silent, item=copies(written=4490))
    assert written(late).failure_reason == "TargetNodeNotReady"


@pytest.mark.parametrize(
    ("mode", "reason", "said"),
    [
        (Mode.TIMED_OUT, "CompletionTimeout", "Not copied within 150 s: 0 MiB are left after 1 rounds"),
        (Mode.STUCK, "ProgressTimeout", "Nothing could be copied for 60 s"),
    ],
)
def test_a_move_that_takes_too_long_is_undone(mode: Mode, reason: str, said: str) -> None:
    """The VM goes on where it is; the status says how far the move had come."""
    found = after(150.0, far(150.0, mode=mode))
    [mark] = [action for action in found.actions if isinstance(action, ClaimVM)]
    assert mark.claim is not None
    assert (mark.claim.aborting or "").startswith(f"{reason}: {said}")
    failed = written(found)
    assert (failed.phase, failed.failure_reason) == ("Failed", reason)
    assert failed.copying is not None
    assert failed.copying.checkpoint.mode is mode


def test_a_paused_guest_is_told_by_the_claim_and_handed_over_when_all_is_copied() -> None:
    """Its VM says so while it lasts."""
    paused = far(150.0, mode=Mode.PAUSED)
    [mark] = after(150.0, paused).actions
    assert isinstance(mark, ClaimVM)
    assert mark.claim is not None
    assert mark.claim.mode == "Paused"
    machine = moving(mark.claim)
    seen = published(plan(machine, SOURCE, TARGET))
    assert condition(seen, "Migrating").reason == "Paused"
    assert seen.phase == "Running"
    done = far(180.0, mode=Mode.PAUSED_DONE, downtime=30.0)
    [over] = after(180.0, done, machine=machine, item=copies(written=170)).actions
    assert isinstance(over, HandOver)
    assert (over.claim.mode, over.downtime) == ("Copied", 30.0)


# --- post-copy ------------------------------------------------------------------------------------------------


def plan(machine: VirtualMachine, *pods: Pod, **circumstances: Any) -> VMPlan:
    """Decide about the VM."""
    return decide(VMView(machine, pods), POLICY, Circumstances(now=NOW, **circumstances))


def test_in_post_copy_the_vm_is_handed_over_at_the_switch() -> None:
    """The rest of its memory follows."""
    [over] = after(150.0, far(150.2, mode=Mode.POST_COPY, downtime=0.12)).actions
    assert isinstance(over, HandOver)
    assert (over.claim.mode, over.downtime) == ("PostCopy", 0.12)


def test_in_post_copy_the_source_stays_until_all_is_copied() -> None:
    """And the VM says what it depends on."""
    machine = moving(POST_COPY, incarnation=1)
    found = plan(machine, SOURCE, TARGET)
    assert not [action for action in found.actions if isinstance(action, DeletePod)]
    assert condition(published(found), "Migrating").reason == "PostCopy"
    [mark] = after(160.0, far(160.0, mode=Mode.POST_COPY_DONE), machine=machine, item=copies(written=150)).actions
    assert isinstance(mark, ClaimVM)
    assert mark.claim is not None
    assert mark.claim.mode == "Copied"
    [delete] = [a for a in plan(moving(mark.claim, incarnation=1), SOURCE, TARGET).actions if isinstance(a, DeletePod)]
    assert delete.pod.metadata.name == SOURCE.metadata.name


TERMINATING = pod(vm(), 0, phase="Running", node="kwok-node-1", terminating=True)
FAILED = pod(vm(), 1, phase="Failed", node="kwok-node-2")


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ((TERMINATING, TARGET), "was deleted"),
        ((SOURCE, FAILED), "ended as Failed"),
        ((TARGET,), "The source pod was deleted"),
    ],
)
def test_a_vm_that_loses_an_end_in_post_copy_is_lost(pods: tuple[Pod, ...], said: str) -> None:
    """Its memory was on both nodes: the move fails, both pods are deleted, and the VM starts anew."""
    machine = moving(POST_COPY, incarnation=1)
    found = after(155.0, far(155.0, mode=Mode.POST_COPY), *pods, machine=machine, item=copies(written=150))
    [mark] = [action for action in found.actions if isinstance(action, ClaimVM)]
    assert mark.claim is not None
    assert (mark.claim.aborting or "").startswith("PostCopyLost: ")
    assert said in (mark.claim.aborting or "")
    assert written(found).failure_reason == "PostCopyLost"
    guards = [action.name for action in found.actions if isinstance(action, ConfirmPodGone)]
    assert guards == ([SOURCE.metadata.name] if len(pods) == 1 else [])

    lost = moving(mark.claim, incarnation=1)
    deletes = [
        action.pod.metadata.name for action in plan(lost, SOURCE, TARGET).actions if isinstance(action, DeletePod)
    ]
    assert set(deletes) == {SOURCE.metadata.name, TARGET.metadata.name}
    released = published(plan(lost))
    assert (released.migration, released.incarnation) == (None, 1)
    again = published(plan(msgspec.structs.replace(lost, status=released)))
    assert again.incarnation == 2


@pytest.mark.parametrize(("running", "said"), [(True, "; the VM restarts"), (False, "; the VM was to end")])
def test_a_vm_that_is_stopped_in_post_copy_is_not_said_to_restart(*, running: bool, said: str) -> None:
    """Its pods are deleted before all memory is copied."""
    machine = moving(POST_COPY, incarnation=1)
    machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, running=running))
    post_copy = far(155.0, mode=Mode.POST_COPY)
    found = after(155.0, post_copy, TERMINATING, TARGET, machine=machine, item=copies(written=150))
    assert (written(found).message or "").endswith(said)


@pytest.mark.parametrize("finished", [True, False])
def test_a_post_copy_that_nobody_follows_any_more_counts_as_copied(*, finished: bool) -> None:
    """Its migration was deleted, or has ended; its source would stay for ever."""
    machine = moving(POST_COPY, incarnation=1)
    item = copies(phase="Failed") if finished else None
    view = View(item, machine, (SOURCE, TARGET), at(160))
    if item is None:
        view = msgspec.structs.replace(view, answers=msgspec.structs.replace(view.answers, orphaned=True))
    found = decide_migration(view, POLICY)
    assert isinstance(found, Plan)
    marks = [action.claim for action in found.actions if isinstance(action, ClaimVM)]
    assert [mark.mode for mark in marks if mark is not None] == ["Copied"]


def test_the_claim_of_a_vm_that_is_stopped_in_post_copy_stays_until_its_migration_has_failed() -> None:
    """Without the claim it would have succeeded: the VM was handed over."""
    machine = moving(POST_COPY, incarnation=1)
    machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, running=False))
    found = plan(machine, migrations=(copies(),))
    writes = [action for action in found.actions if isinstance(action, WriteStatus)]
    assert all(write.status.migration is not None for write in writes)
    assert found.requeue_after is not None


def test_in_post_copy_a_source_that_no_cache_shows_is_looked_for() -> None:
    """Its labels may have been removed; with them it is seen again."""
    found = plan(moving(POST_COPY, incarnation=1), TARGET)
    assert [action.name for action in found.actions if isinstance(action, ConfirmPod)] == [SOURCE.metadata.name]


def test_a_switch_to_post_copy_is_recorded_at_once() -> None:
    """Another leader at another speed would go back to pre-copy."""
    machine = moving(POST_COPY, incarnation=1)
    found = after(155.0, far(155.0, mode=Mode.POST_COPY), machine=machine, item=copies(written=150))
    copied = written(found).copying
    assert copied is not None
    assert copied.checkpoint.mode is Mode.POST_COPY


def test_a_source_that_does_not_end_after_the_hand_over_is_reported() -> None:
    """After five seconds."""
    machine = moving(CLAIM, incarnation=1)
    over = Over("uid-m-1", times.micro_timestamp(NOW), "0.3")
    machine = msgspec.structs.replace(machine, status=msgspec.structs.replace(machine.status, last_hand_over=over))
    assert decided(copies(), machine, TERMINATING, TARGET, now=at(4)).actions == ()
    assert "is still terminating" in (written(decided(copies(), machine, TERMINATING, TARGET, now=at(6))).message or "")
