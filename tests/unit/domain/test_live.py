"""A VM that moves live: its two pods, their numbers, and the decisions of its migration, one at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.domain import names
from controller.domain.copying.model import start
from controller.domain.migration.decide import decide as decide_migration
from controller.domain.migration.plan import AskDryRun, ClaimVM, View, WriteMigration
from controller.domain.objects import Claim, HandOver, MigrationStatus, PhaseTime, VirtualMachine, VMStatus
from controller.domain.vm import launcher, records
from controller.domain.vm.decide import decide
from controller.domain.vm.plan import (
    Circumstances,
    ConfirmPodGone,
    ConfirmTold,
    CreatePod,
    DeletePod,
    PatchPod,
    Plan,
    WriteStatus,
)
from controller.domain.vm.plan import View as VMView
from controller.kube import times
from controller.kube.kinds import Node, Pod
from controller.kube.meta import ObjectMeta
from tests.unit.domain.builders import NOW, POLICY, condition, pod, published, running, settled, vm
from tests.unit.domain.moves import YES, at, decided, move, written

CLAIM = Claim(
    name="m-1", uid="uid-m-1", source_node="kwok-node-1", source_incarnation=0, strategy="Live", target_incarnation=1
)
ABORTING = msgspec.structs.replace(CLAIM, aborting="Cancelled: before the VM was handed over")


def moving(claim: Claim = CLAIM, *, incarnation: int = 0, running: bool = True, **more: Any) -> VirtualMachine:
    """A VM that runs in its first incarnation, with a live claim."""
    base = settled(vm(), _running(vm(), 0))
    status = msgspec.structs.replace(
        base.status, incarnation=incarnation, migration=claim, last_incarnation=claim.target, **more
    )
    return msgspec.structs.replace(base, status=status, spec=msgspec.structs.replace(base.spec, running=running))


def _running(owner: VirtualMachine, number: int, node: str | None = None) -> Pod:
    return pod(owner, number, phase="Running", node=node or f"kwok-node-{number + 1}")


SOURCE = _running(vm(), 0)
TARGET = _running(vm(), 1)


def plan(machine: VirtualMachine, *pods: Pod, **circumstances: Any) -> Plan:
    """Decide about the VM."""
    return decide(VMView(machine, pods), POLICY, Circumstances(now=NOW, **circumstances))


def acts(found: Plan) -> list[Any]:
    """The actions of a plan but status writes and patches of a pod's metadata."""
    return [action for action in found.actions if not isinstance(action, WriteStatus | PatchPod)]


# --- the VM's side: two pods ------------------------------------------------------------------------------------


def test_the_target_is_created_beside_the_source_by_the_process_that_gave_its_number() -> None:
    """No pod is deleted, and the VM stays Running."""
    [create] = acts(plan(moving(), SOURCE, target_given=1))
    assert isinstance(create, CreatePod)
    assert (create.incarnation, create.predecessor) == (1, None)


def test_a_target_whose_create_may_have_been_sent_before_gets_a_new_number() -> None:
    """Its pod may have come to be and be gone, and no number is used twice."""
    found = published(plan(moving(), SOURCE))
    assert found.migration is not None
    assert (found.migration.target, found.last_incarnation, found.incarnation) == (2, 2, 0)


def test_no_target_is_created_while_an_earlier_create_may_commit() -> None:
    """It may be this one."""
    found = plan(moving(), SOURCE, target_given=1, create_expected=12.0)
    assert (acts(found), found.requeue_after) == ([], 12.0)


@pytest.mark.parametrize("known", ["seen", "recorded"])
def test_a_target_that_was_there_and_is_gone_ends_the_move(known: str) -> None:
    """It was deleted: by an eviction, or by hand."""
    recorded = msgspec.structs.replace(
        move(), status=MigrationStatus(phase="Running", target_pod=launcher.name(vm(), 1))
    )
    more = {"target_seen": 1} if known == "seen" else {"migrations": (recorded,)}
    found = published(plan(moving(), SOURCE, **more)).migration
    assert found is not None
    assert (found.aborting or "").startswith("TargetLost: ")


def test_a_target_that_the_api_server_refuses_ends_the_move() -> None:
    """The VM's pod goes on."""
    found = published(plan(moving(), SOURCE, target_given=1, create_refusal="exceeded quota"))
    assert found.migration is not None
    assert found.migration.aborting == "TargetRefused: exceeded quota"
    assert found.phase == "Running"


def test_both_ends_stay_while_the_memory_is_copied() -> None:
    """Nothing is written either."""
    machine = moving()
    machine = msgspec.structs.replace(machine, status=published(plan(machine, SOURCE, TARGET)))
    assert plan(machine, SOURCE, TARGET).actions == ()
    assert condition(machine.status, "Migrating").reason == "InProgress"


def test_an_undone_move_deletes_its_target() -> None:
    """The source is the VM."""
    [delete] = acts(plan(moving(ABORTING), SOURCE, TARGET))
    assert isinstance(delete, DeletePod)
    assert delete.pod is TARGET


def test_after_the_hand_over_the_source_is_deleted() -> None:
    """It runs nothing any more."""
    handed = moving(incarnation=1, pod_uid=TARGET.metadata.uid, pod_name=TARGET.metadata.name)
    [delete] = acts(plan(handed, SOURCE, TARGET))
    assert isinstance(delete, DeletePod)
    assert delete.pod is SOURCE


@pytest.mark.parametrize(("claim", "incarnation", "kept", "gone"), [(ABORTING, 0, SOURCE, 1), (CLAIM, 1, TARGET, 0)])
def test_the_claim_is_removed_when_a_live_read_finds_no_second_pod(
    claim: Claim, incarnation: int, kept: Pod, gone: int
) -> None:
    """By its name: the watch does not show a pod without its labels."""
    machine = moving(claim, incarnation=incarnation, pod_uid=kept.metadata.uid, node_name=kept.spec.node_name)
    found = plan(machine, kept)
    assert acts(found)[-1] == ConfirmPodGone(launcher.name(machine, gone))
    assert isinstance(found.actions[-1], WriteStatus)
    assert (published(found).migration, published(found).incarnation) == (None, incarnation)


def test_the_claim_stays_while_a_create_of_the_target_may_commit() -> None:
    """For the hold of an unknown outcome."""
    found = plan(moving(ABORTING), SOURCE, create_expected=7.0)
    assert (acts(found), found.requeue_after) == ([], 7.0)


@pytest.mark.parametrize(("claim", "running"), [(ABORTING, True), (ABORTING, False), (CLAIM, False)])
def test_the_claim_stays_until_its_migration_has_said_why_it_failed(claim: Claim, *, running: bool) -> None:
    """The reason would be lost with the claim, also if the VM was stopped and its pods are gone."""
    untold = msgspec.structs.replace(move(), status=MigrationStatus(phase="Running"))
    pods = (SOURCE,) if running else ()
    found = plan(moving(claim, running=running), *pods, migrations=(untold,))
    assert (acts(found), found.requeue_after) == ([], 1)
    assert not any(action.status.migration is None for action in found.actions if isinstance(action, WriteStatus))


def test_the_claim_of_a_migration_that_no_cache_shows_is_removed_when_a_live_read_finds_that_it_has_ended() -> None:
    """An old list may hide one that has not said why it failed."""
    [told, _] = acts(plan(moving(ABORTING), SOURCE))
    assert told == ConfirmTold("m-1", "uid-m-1")


@pytest.mark.parametrize("incarnation", [0, 1])
def test_a_migration_that_ended_without_the_end_of_its_move_has_it_undone_before_the_hand_over(
    incarnation: int,
) -> None:
    """Its claim would stay for ever; after the hand-over it ends by itself."""
    ended = live_move(state={"phase": "Failed", "failure_reason": "ClaimLost", "message": "gone"})
    found = decided(ended, moving(incarnation=incarnation), SOURCE, TARGET)
    [*marks] = [action.claim.aborting for action in found.actions if isinstance(action, ClaimVM) and action.claim]
    assert marks == (["ClaimLost: gone"] if incarnation == 0 else [])


def test_a_lost_source_moves_the_incarnation_only_after_the_move_was_undone() -> None:
    """Then the VM restarts under a number that was never given out."""
    lost = plan(moving(), TARGET)
    assert published(lost).incarnation == 0
    released = published(plan(moving(ABORTING)))
    assert (released.migration, released.incarnation) == (None, 0)
    again = published(plan(msgspec.structs.replace(moving(), status=released)))
    assert (again.incarnation, again.previous_incarnation, again.last_incarnation) == (2, 0, 2)


def test_a_later_incarnation_names_the_pod_before_it_although_numbers_lie_between() -> None:
    """The live read before its create is of that pod."""
    status = VMStatus(phase="Scheduling", incarnation=5, previous_incarnation=2, last_incarnation=5)
    [create] = acts(plan(vm(status=status)))
    assert create.predecessor == launcher.name(vm(), 2)


def test_no_other_pod_is_the_vm_while_the_recorded_one_lives() -> None:
    """A number that the status forgot is remembered, and its pod deleted."""
    machine = settled(vm(), SOURCE)
    found = plan(machine, SOURCE, TARGET)
    [delete] = acts(found)
    assert delete.pod is TARGET
    assert (published(found).incarnation, published(found).last_incarnation) == (0, 1)


# --- the target pod ---------------------------------------------------------------------------------------------


def test_a_target_has_the_requests_and_the_metadata_of_its_source_and_the_placement_of_now() -> None:
    """The guest goes on, so an edit of its size holds from the next start; it uses nothing until the hand-over."""
    before = vm(labels={"app": "a"}, annotations={"note": "1", names.BOOT_TIME: "90s"})
    before = msgspec.structs.replace(before, spec=msgspec.structs.replace(before.spec, priority_class_name="high"))
    source = running(before)
    after = vm(cpu="0.50", labels={"app": "b"}, annotations={"note": "2"})
    after = msgspec.structs.replace(after, spec=msgspec.structs.replace(after.spec, node_selector={"zone": "a"}))
    body = launcher.live_target(after, CLAIM, source, POLICY)
    meta, spec = body["metadata"], body["spec"]
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "4800m"
    assert (meta["labels"]["app"], meta["annotations"]["note"]) == ("a", "1")
    assert names.BOOT_TIME not in meta["annotations"]
    assert (spec["nodeSelector"]["zone"], spec["priorityClassName"]) == ("a", "high")
    assert (meta["annotations"][names.CPU_CONSUMPTION], meta["annotations"][names.KWOK_USAGE_CPU]) == ("0", "0m")


@pytest.mark.parametrize("by_name", [False, True])
def test_a_target_is_kept_off_its_source_by_anti_affinity_and_by_name_if_that_has_no_hostname(*, by_name: bool) -> None:
    """Anti-affinity bars only nodes that have the topology's label."""
    spec = launcher.live_target(vm(), msgspec.structs.replace(CLAIM, barred_by_name=by_name), SOURCE, POLICY)["spec"]
    [term] = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"kubevirt.io/created-by": "uid-1"}}
    assert ("nodeAffinity" in spec["affinity"]) is by_name


@pytest.mark.parametrize(("number", "recorded"), [(0, False), (1, True)])
def test_only_the_eviction_of_the_vms_own_pod_is_one_of_the_vm(number: int, *, recorded: bool) -> None:
    """That of the other end ends the move, or nothing."""
    machine = moving(incarnation=1 if recorded else 0)
    assert records.moved_by_migration(machine, _running(vm(), 1), ()) is (number == 0)


# --- the migration's side ---------------------------------------------------------------------------------------


def live_move(**more: Any) -> Any:
    """A live migration in a phase, or with another spec."""
    state = more.pop("state", None)
    return move(state=state, strategy="Live", **more)


COPIES = {"phase": "Running", "strategy": "Live", "start_timestamp": times.micro_timestamp(NOW)}


def since(phase: str) -> dict[str, Any]:
    """The status of a migration that reached a phase now."""
    step = PhaseTime(phase, times.micro_timestamp(NOW))
    return {**COPIES, "phase": phase, "phase_transition_timestamps": (step,)}


def test_a_live_claim_takes_the_next_number_never_given_out() -> None:
    """Also after numbers that no pod ever had."""
    machine = settled(vm(), SOURCE)
    machine = msgspec.structs.replace(machine, status=msgspec.structs.replace(machine.status, last_incarnation=4))
    node = Node(ObjectMeta(name="kwok-node-1", labels={"kubernetes.io/hostname": "kwok-node-1"}))
    found = decided(live_move(), machine, SOURCE, source_node=node)
    [claim] = [action.claim for action in found.actions if isinstance(action, ClaimVM)]
    assert claim is not None
    assert (claim.strategy, claim.target_incarnation, claim.barred_by_name) == ("Live", 5, False)


def test_the_quota_counts_the_whole_target() -> None:
    """The source stays beside it."""
    answers = msgspec.structs.replace(YES, accepted=False)
    ask = decide_migration(View(live_move(), settled(vm(), SOURCE), (SOURCE,), NOW, answers=answers), POLICY)
    assert isinstance(ask, AskDryRun)
    assert (ask.source, ask.beside) == (None, SOURCE)


def test_copying_begins_when_the_target_runs() -> None:
    """The phases before it are published with it, each with its time."""
    begun = decided(live_move(), moving(), SOURCE, TARGET)
    assert [step.phase for step in written(begun).phase_transition_timestamps] == [
        *("Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running")
    ]
    copies = written(begun).copying
    assert copies is not None
    assert (copies.checkpoint, copies.timestamp) == (start(copies.job("")), times.micro_timestamp(NOW))


FAILURES: list[tuple[dict[str, Any], tuple[Pod, ...], float, str]] = [
    ({}, (TARGET,), 0, "SourceLost"),
    ({}, (pod(vm(), 0, phase="Failed", node="kwok-node-1"), TARGET), 0, "SourceLost"),
    ({}, (pod(vm(), 0, phase="Running", node="kwok-node-1", terminating=True), TARGET), 0, "SourceLost"),
    ({}, (SOURCE, pod(vm(), 1, phase="Failed", node="kwok-node-2")), 0, "TargetFailed"),
    ({}, (SOURCE, pod(vm(), 1, phase="Running", node="kwok-node-2", terminating=True)), 0, "TargetLost"),
    ({"state": since("Scheduling")}, (SOURCE, pod(vm(), 1, unschedulable="no node")), 300, "TargetUnschedulable"),
    ({"state": since("Scheduled")}, (SOURCE, pod(vm(), 1, node="kwok-node-2")), 900, "TargetFailed"),
    ({"cancel": True}, (SOURCE, TARGET), 0, "Cancelled"),
]


@pytest.mark.parametrize(("item", "pods", "seconds", "reason"), FAILURES)
def test_a_failure_before_the_hand_over_marks_the_claim_before_the_migration_is_failed(
    item: dict[str, Any], pods: tuple[Pod, ...], seconds: float, reason: str
) -> None:
    """So a hand-over that is still on its way conflicts with the mark."""
    found = decided(live_move(**item), moving(), *pods, now=at(seconds))
    [mark] = [action for action in found.actions if isinstance(action, ClaimVM)]
    assert next(action for action in found.actions if isinstance(action, ClaimVM | WriteMigration)) is mark
    assert mark.claim is not None
    assert (mark.claim.aborting or "").startswith(f"{reason}: ")
    assert (written(found).phase, written(found).failure_reason) == ("Failed", reason)


@pytest.mark.parametrize("item", [{"cancel": True}, {}])
def test_after_the_hand_over_neither_a_cancellation_nor_a_lost_source_changes_anything(item: dict[str, Any]) -> None:
    """The VM runs in the target."""
    found = decided(live_move(state=COPIES, **item), moving(incarnation=1), TARGET)
    assert not found.claims


def test_a_migration_that_was_not_told_of_its_hand_over_succeeds_with_its_time() -> None:
    """The VM remembers it when the claim is gone."""
    handed = HandOver("uid-m-1", times.micro_timestamp(NOW), "0.276")
    base = settled(vm(), TARGET)
    machine = msgspec.structs.replace(base, status=msgspec.structs.replace(base.status, last_hand_over=handed))
    found = written(decided(live_move(state=COPIES), machine, TARGET, now=at(60)))
    assert (found.phase, found.end_timestamp) == ("Succeeded", times.micro_timestamp(NOW))
    assert found.downtime_seconds == "0.276"


@pytest.mark.parametrize(("claim", "incarnation", "waits"), [(ABORTING, 0, True), (CLAIM, 1, True), (CLAIM, 0, False)])
def test_a_migration_waits_for_the_end_of_one_that_is_cleaned_up(
    claim: Claim, incarnation: int, *, waits: bool
) -> None:
    """It fails only beside one that is on its way."""
    other = msgspec.structs.replace(claim, name="m-0", uid="uid-m-0")
    found = written(decided(live_move(), moving(other, incarnation=incarnation), SOURCE, TARGET))
    assert found.phase == ("Pending" if waits else "Failed")


def test_a_target_that_is_not_created_is_reported_after_five_seconds() -> None:
    """Earlier, nothing is written about it."""
    machine = moving()
    machine = msgspec.structs.replace(machine, status=published(plan(machine, SOURCE, TARGET)))
    early = decided(live_move(), machine, SOURCE, now=at(2))
    assert (early.actions, early.requeue_after) == ((), 3)
    assert "not created yet" in (written(decided(live_move(), machine, SOURCE, now=at(5))).message or "")


def test_a_target_that_is_gone_sends_its_migration_to_no_earlier_phase() -> None:
    """The status names the target pod, by which its loss is told from a create that is still to come."""
    found = decided(live_move(state=since("Running")), moving(), SOURCE, now=at(60))
    assert found.actions == ()


def test_a_vm_that_was_stopped_is_stopped_with_the_write_that_removes_its_claim() -> None:
    """It is not said to run when both pods are gone."""
    found = plan(moving(ABORTING, running=False))
    assert (published(found).phase, published(found).migration, published(found).incarnation) == ("Stopped", None, 2)
