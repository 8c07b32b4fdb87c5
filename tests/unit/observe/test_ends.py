"""Verdicts on hand-made histories of a VM that moves live, good ones and one for each clause that is breached."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from controller.domain.objects import Claim
from controller.observe.ends import Clause, breaches
from controller.observe.history import MigrationSeen, NodeSeen, PodSeen, Seen, VMSeen

VM = "uid-of-vm"


def numbered(*events: Seen) -> tuple[Seen, ...]:
    """Give the events the revisions 1, 2, … in their order."""
    return tuple(
        event if isinstance(event, NodeSeen) else replace(event, at=float(at), revision=at)
        for at, event in enumerate(events, 1)
    )


def pod(number: int, node: str | None = "n1", phase: str = "Running", *, name: str = "") -> PodSeen:
    """A pod of the VM's incarnation of this number."""
    called = name or f"p{number}"
    return PodSeen(0, f"uid-of-{called}", called, VM, "vm", node, phase, incarnation=number)


def created(number: int, *, name: str = "") -> PodSeen:
    """A pod without a node."""
    return pod(number, None, "Pending", name=name)


def terminating(number: int, node: str | None = "n1", phase: str = "Running") -> PodSeen:
    """A pod whose deletion has begun."""
    return replace(pod(number, node, phase), terminating=True)


def deleted(number: int, node: str | None = "n1", phase: str = "Running", *, name: str = "") -> PodSeen:
    """A deleted pod."""
    return replace(pod(number, node, phase, name=name), terminating=True, deleted=True)


def live(
    target: int | None = 1, source: int = 0, *, uid: str = "m", aborting: str | None = None, mode: str | None = None
) -> Claim:
    """The claim of a live move."""
    return Claim(
        name=f"name-of-{uid}",
        uid=uid,
        source_node="n1",
        source_incarnation=source,
        strategy="Live",
        target_incarnation=target,
        aborting=aborting,
        mode=mode,
    )


def recreate(source: int = 0, *, rollback: bool = False) -> Claim:
    """The claim of a move by Recreate."""
    return Claim(name="name-of-r", uid="r", source_node="n1", source_incarnation=source, rollback=rollback)


def vm(
    number: int | None = 0, node: str | None = "n1", claim: Claim | None = None, *, last: int | None = None
) -> VMSeen:
    """A VM whose status names the pod of this number on this node."""
    uid = f"uid-of-p{number}" if node is not None else None
    return VMSeen(0, VM, "vm", "Running", node, False, uid, number, last, claim)


def moved(phase: str, *, uid: str = "m") -> MigrationSeen:
    """A migration in a phase."""
    return MigrationSeen(0, uid, f"name-of-{uid}", "vm", phase)


START: tuple[Seen, ...] = (vm(None, None), created(0), pod(0), vm(0))
"""A VM that starts."""
CLAIMED: tuple[Seen, ...] = (*START, vm(0, claim=live(), last=1))
"""It is claimed: pod 1 is the target of pod 0."""
COPYING: tuple[Seen, ...] = (*CLAIMED, created(1), moved("Scheduling"), pod(1, "n2", "Pending"), pod(1, "n2"))
"""The target runs beside the source."""
HANDED_OVER: tuple[Seen, ...] = (*COPYING, moved("Running"), vm(1, "n2", live(), last=1))
"""The target is the VM."""
MOVED: tuple[Seen, ...] = (*HANDED_OVER, terminating(0), deleted(0), vm(1, "n2", last=1), moved("Succeeded"))
"""The source is gone, and the claim after it."""
ABORTING: tuple[Seen, ...] = (*COPYING, vm(0, claim=live(aborting="Cancelled"), last=1), moved("Failed"))
"""The claim is marked before anything is deleted."""
ABORTED: tuple[Seen, ...] = (*ABORTING, terminating(1, "n2"), deleted(1, "n2"), vm(0, last=1))
"""The target is gone, and the claim after it."""

GOOD: dict[str, tuple[Seen, ...]] = {
    "a move": MOVED,
    "a move, and back": (
        *MOVED,
        vm(1, "n2", live(2, 1, uid="m2"), last=2),
        created(2),
        pod(2, "n1"),
        vm(2, "n1", live(2, 1, uid="m2"), last=2),
        deleted(1, "n2"),
        vm(2, "n1", last=2),
        moved("Succeeded", uid="m2"),
    ),
    "a target that finds no node": (
        *CLAIMED,
        created(1),
        vm(0, claim=live(aborting="TargetUnschedulable"), last=1),
        deleted(1, None, "Pending"),
        vm(0, last=1),
        moved("Failed"),
    ),
    "an abort before the target was created": (
        *CLAIMED,
        vm(0, claim=live(aborting="Cancelled"), last=1),
        vm(0, last=1),
    ),
    "an abort while copying": ABORTED,
    "a post-copy": (
        *COPYING,
        vm(1, "n2", live(mode="PostCopy"), last=1),
        vm(1, "n2", live(mode="Copied"), last=1),
        terminating(0),
        deleted(0),
        vm(1, "n2", last=1),
        moved("Succeeded"),
    ),
    "a source that is lost in post-copy": (
        *COPYING,
        vm(1, "n2", live(mode="PostCopy"), last=1),
        terminating(0),
        vm(1, "n2", live(mode="PostCopy", aborting="PostCopyLost"), last=1),
        moved("Failed"),
        terminating(1, "n2"),
        deleted(0),
        deleted(1, "n2"),
        vm(1, "n2", last=1),
        vm(2, None, last=2),
        created(2),
    ),
    "an abort, and a late create of its target": (
        *CLAIMED,
        vm(0, claim=live(aborting="Cancelled"), last=1),
        created(1),
        deleted(1, None, "Pending"),
        vm(0, last=1),
    ),
    "a target that is evicted": (
        *COPYING,
        terminating(1, "n2"),
        vm(0, claim=live(aborting="TargetLost"), last=1),
        deleted(1, "n2"),
        vm(0, last=1),
    ),
    "a target that fails beside its source": (
        *COPYING,
        pod(1, "n2", "Failed"),
        vm(0, claim=live(aborting="TargetFailed"), last=1),
        deleted(1, "n2", "Failed"),
        vm(0, last=1),
    ),
    "a retry after an abort takes a later number": (
        *ABORTED,
        vm(0, claim=live(2, uid="m2"), last=2),
        created(2),
        pod(2, "n3"),
        vm(2, "n3", live(2, uid="m2"), last=2),
        deleted(0),
        vm(2, "n3", last=2),
        moved("Succeeded", uid="m2"),
    ),
    "a restart after an abort takes a later number": (
        *ABORTED,
        deleted(0),
        vm(2, None, last=2),
        created(2),
        pod(2, "n3"),
    ),
    "a lost source moves the incarnation only when the target is gone": (
        *COPYING,
        terminating(0),
        vm(0, claim=live(aborting="SourceLost"), last=1),
        deleted(0),
        terminating(1, "n2"),
        deleted(1, "n2"),
        vm(0, last=1),
        vm(2, None, last=2),
        created(2),
    ),
    "a lost source, and its claim removed by the write that begins the next incarnation": (
        *COPYING,
        deleted(0),
        vm(0, claim=live(aborting="SourceLost"), last=1),
        deleted(1, "n2"),
        vm(2, None, last=2),
        created(2),
    ),
    "a source that fails while copying": (
        *COPYING,
        pod(0, phase="Failed"),
        vm(0, claim=live(aborting="SourceFailed"), last=1),
        deleted(1, "n2"),
        vm(0, last=1),
        vm(2, None, last=2),
        deleted(0, phase="Failed"),
        created(2),
    ),
    "a target lost after the hand-over": (
        *HANDED_OVER,
        deleted(1, "n2"),
        terminating(0),
        deleted(0),
        vm(1, "n2", last=1),
        moved("Succeeded"),
        vm(2, None, last=2),
        created(2),
    ),
    "a target that ended between the look and the hand-over": (
        *COPYING,
        pod(1, "n2", "Failed"),
        vm(1, "n2", live(), last=1),
        deleted(0),
        vm(1, "n2", last=1),
    ),
    "a source on a dead node keeps the claim": (*HANDED_OVER, terminating(0), vm(1, "n2", live(), last=1)),
    "a claim whose spent number is replaced by a later one": (
        *CLAIMED,
        vm(0, claim=live(2), last=2),
        created(2),
        pod(2, "n2"),
        vm(2, "n2", live(2), last=2),
        deleted(0),
        vm(2, "n2", last=2),
    ),
    "a VM deleted while copying": (
        *COPYING,
        replace(vm(0, claim=live(), last=1), deleted=True),
        terminating(0),
        terminating(1, "n2"),
        deleted(0),
        deleted(1, "n2"),
    ),
    "a create that commits late, of the number of a lost pod": (
        *START,
        deleted(0),
        created(0, name="x"),
        vm(1, None),
        deleted(0, None, "Pending", name="x"),
        created(1),
    ),
    "a pod that its VM does not control any more": (
        *START,
        replace(pod(0), vm_uid="", vm=""),
        created(0, name="other"),
    ),
    "a pod that loses its number by hand": (*COPYING, replace(pod(0), incarnation=None)),
    "a move by Recreate": (
        *START,
        vm(1, None, recreate()),
        terminating(0),
        deleted(0),
        created(1),
        pod(1, "n2"),
        vm(1, "n2", recreate()),
        moved("Succeeded", uid="r"),
        vm(1, "n2"),
    ),
    "a roll-back by Recreate": (
        *START,
        vm(1, None, recreate()),
        deleted(0),
        created(1),
        vm(1, None, recreate(rollback=True)),
        vm(2, None, recreate(rollback=True)),
        deleted(1, None, "Pending"),
        created(2),
    ),
    "a pod that was lost before any status told of it": (
        vm(None, None),
        created(0),
        deleted(0, None),
        created(0, name="x"),
    ),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_a_good_history_breaches_nothing(history: tuple[Seen, ...]) -> None:
    """Every version of it is as it should be."""
    assert breaches(numbered(*history)) == []


BAD: dict[str, tuple[Clause, tuple[Seen, ...]]] = {
    # Two live pods.
    "a second pod without a claim": (Clause.PODS, (*START, created(0, name="x"))),
    "a successor beside a terminating pod": (
        Clause.PODS,
        (*START, terminating(0), vm(1, None, recreate()), created(1), deleted(0)),
    ),
    "a target before its claim": (Clause.PODS, (*START[:3], replace(pod(0), incarnation=None), created(0, name="x"))),
    "a claim removed before the target is gone": (Clause.PODS, (*ABORTING, terminating(1, "n2"), vm(0, last=1))),
    "a claim removed before the source is gone": (Clause.PODS, (*HANDED_OVER, terminating(0), vm(1, "n2", last=1))),
    "a third pod": (Clause.PODS, (*COPYING, replace(created(1, name="x"), incarnation=None))),
    # The ends.
    "a source that is no end of the claim": (
        Clause.ENDS,
        (vm(None, None), replace(pod(0), incarnation=None), vm(0), vm(0, claim=live(), last=1), created(1)),
    ),
    "ends on one node": (Clause.NODES, (*CLAIMED, created(1), pod(1, "n1", "Pending"))),
    "a status that names the other end's pod": (
        Clause.NAMED,
        (*COPYING, replace(vm(0, claim=live(), last=1), pod_uid="uid-of-p1")),
    ),
    "a status that names the other end's node": (Clause.NAMED, (*COPYING, vm(0, "n2", live(), last=1))),
    "a status that names no pod of two": (Clause.NAMED, (*COPYING, replace(vm(0, claim=live(), last=1), pod_uid=None))),
    "a pod that changes its node": (Clause.NODE, (*START, pod(0, "n2"))),
    "a pod that loses its node": (Clause.NODE, (*START, pod(0, None))),
    # Numbers.
    "a target that is made twice": (Clause.NUMBER, (*COPYING, deleted(1, "n2"), created(1, name="x"))),
    "a source that is made twice": (Clause.NUMBER, (*CLAIMED, deleted(0), created(0, name="x"))),
    "a create that commits after its claim was removed": (
        Clause.TURN,
        (*CLAIMED, vm(0, claim=live(aborting="SourceLost"), last=1), deleted(0), vm(0, last=1), created(1)),
    ),
    "a create of an earlier incarnation": (Clause.TURN, (*START, deleted(0), vm(1, None), created(0, name="x"))),
    "a retry that takes the aborted target's number": (
        Clause.GIVEN,
        (*CLAIMED, vm(0, claim=live(aborting="Cancelled"), last=1), vm(0, last=1), vm(0, claim=live(uid="m2"), last=1)),
    ),
    "a restart that takes the aborted target's number": (Clause.GIVEN, (*ABORTED, deleted(0), vm(1, None, last=1))),
    "a target with the number of its source": (Clause.GIVEN, (*START, vm(0, claim=live(0), last=0))),
    "a claim without a number for its target": (Clause.GIVEN, (*START, vm(0, claim=live(None), last=1))),
    "a claim whose number goes back": (
        Clause.GIVEN,
        (*CLAIMED, vm(0, claim=live(2), last=2), vm(0, claim=live(1), last=2)),
    ),
    "a claim whose number is not remembered": (Clause.MEMORY, (*START, vm(0, claim=live()))),
    "a number that is forgotten": (Clause.MEMORY, (*ABORTED, vm(0))),
    "an incarnation that is forgotten": (Clause.MEMORY, (*START, vm(None, None))),
    # The hand-over, and what becomes the VM.
    "a hand-over after the abort's first write": (
        Clause.HAND_OVER,
        (*ABORTING, vm(1, "n2", live(aborting="Cancelled"), last=1)),
    ),
    "a hand-over that removes its claim": (Clause.HAND_OVER, (*COPYING, deleted(0), vm(1, "n2", last=1))),
    "a hand-over to a pod that never was": (Clause.HAND_OVER, (*CLAIMED, vm(1, "n2", live(), last=1))),
    "a hand-over to a pod that never ran": (
        Clause.HAND_OVER,
        (*CLAIMED, created(1), pod(1, "n2", "Pending"), vm(1, "n2", live(), last=1)),
    ),
    "a hand-over that names no pod": (
        Clause.HAND_OVER,
        (*COPYING, deleted(0), replace(vm(1, "n2", live(), last=1), pod_uid=None)),
    ),
    "a hand-over that names the source's node": (Clause.HAND_OVER, (*COPYING, deleted(0), vm(1, "n1", live(), last=1))),
    "a restart under the claim": (
        Clause.HAND_OVER,
        (*COPYING, deleted(0), deleted(1, "n2"), vm(2, None, live(), last=2)),
    ),
    "another VM while the recorded pod lives": (Clause.SUCCESSOR, (*START, vm(1, None))),
    "a restart while the source lives": (Clause.SUCCESSOR, (*ABORTED, vm(2, None, last=2))),
    # The claim.
    "a claim of a pod that is not the VM": (
        Clause.CLAIM,
        (*START, deleted(0), vm(1, None), created(1), pod(1), vm(1), vm(1, claim=live(2, 0), last=2)),
    ),
    "a claim whose source changes": (Clause.CLAIM, (*CLAIMED, vm(0, claim=live(1, 7), last=1))),
    "a claim whose strategy changes": (
        Clause.CLAIM,
        (*CLAIMED, vm(0, claim=msgspec.structs.replace(live(), strategy="Recreate"), last=1)),
    ),
    "a claim taken over by another migration": (Clause.CLAIM, (*CLAIMED, vm(0, claim=live(2, uid="m2"), last=2))),
    "an abort that is undone": (
        Clause.ABORT,
        (*CLAIMED, vm(0, claim=live(aborting="Cancelled"), last=1), vm(0, claim=live(), last=1)),
    ),
    "an abort after the hand-over": (
        Clause.ABORT,
        (*HANDED_OVER, vm(1, "n2", live(aborting="Cancelled"), last=1)),
    ),
    "a success without a hand-over": (Clause.OUTCOME, (*COPYING, moved("Succeeded"), moved("Succeeded"))),
}


@pytest.mark.parametrize(("clause", "history"), BAD.values(), ids=BAD.keys())
def test_a_breach_is_reported_once_and_alone(clause: Clause, history: tuple[Seen, ...]) -> None:
    """Nothing else is wrong with the history."""
    assert [breach.clause for breach in breaches(numbered(*history))] == [clause]


def test_every_clause_has_a_history_that_breaches_it() -> None:
    """A clause that nothing breaches shows nothing."""
    assert {clause for clause, _ in BAD.values()} == set(Clause)


@given(some.data())
def test_the_order_in_which_watches_deliver_is_of_no_account(data: some.DataObject) -> None:
    """Each version of a pod is judged by the status at or before it."""
    histories = [*GOOD.values(), *(history for _, history in BAD.values())]
    history = numbered(*data.draw(some.sampled_from(histories)))
    assert breaches(data.draw(some.permutations(history))) == breaches(history)


# --- one pod after the other, as under Recreate ------------------------------------------------------------------

NODES = (NodeSeen(0, "n1"), NodeSeen(0, "n2"))


def said(*events: Seen) -> list[str]:
    """The complaints about a history without a status."""
    return [breach.what for breach in breaches(numbered(*NODES, *events))]


def test_a_violation_names_the_pods() -> None:
    """And the VM, by its name; the breach has the time and the version of the event."""
    [breach] = breaches(numbered(*NODES, pod(0), terminating(0), created(1), deleted(0)))
    assert breach.what == "VM vm has 2 live pods: p0, p1"
    assert (breach.at, breach.revision) == (5.0, 5)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_in_a_terminal_phase_is_not_live(phase: str) -> None:
    """It may exist beside its successor."""
    assert said(pod(0), pod(0, phase=phase), pod(1)) == []


def test_a_third_pod_is_a_further_violation_and_a_change_of_the_two_is_none() -> None:
    """Each further pod is reported once."""
    events = pod(0), pod(1), terminating(1), pod(2), deleted(2), pod(0)
    assert said(*events) == ["VM vm has 2 live pods: p0, p1", "VM vm has 3 live pods: p0, p1, p2"]


def test_a_second_pod_after_a_time_with_one_is_a_new_violation() -> None:
    """Two violations in all."""
    assert len(said(pod(0), pod(1), deleted(1), pod(2))) == 2


def test_vms_are_identified_by_uid_and_foreign_pods_are_ignored() -> None:
    """A VM that was re-created with its name is another one."""
    other, strangers = replace(pod(1), vm_uid="another"), [replace(pod(n), vm_uid="", vm="") for n in (2, 3)]
    assert said(pod(0), other, *strangers) == []


@given(
    some.lists(
        some.builds(
            PodSeen,
            at=some.just(0),
            uid=some.sampled_from("abcd"),
            name=some.just(""),
            vm_uid=some.sampled_from("vw"),
            phase=some.sampled_from(["Pending", "Running", "Failed"]),
            terminating=some.booleans(),
            deleted=some.booleans(),
        ),
        max_size=12,
    )
)
def test_without_a_live_move_every_further_live_pod_is_a_violation(pods: list[PodSeen]) -> None:
    """However they come and go, with a claim of Recreate or without: compared with a count of live pods."""
    history = numbered(*(replace(event, name=event.uid, vm_uid=(event.uid in "ab" and "v") or "w") for event in pods))
    expected, live_pods, known = [], dict[str, PodSeen](), dict[str, frozenset[str]]()
    for event in history:
        assert isinstance(event, PodSeen)
        live_pods.pop(event.uid, None)
        if event.live:
            live_pods[event.uid] = event
        names = frozenset(each.name for each in live_pods.values() if each.vm_uid == event.vm_uid)
        if len(names) > 1 and not names <= known.get(event.vm_uid, frozenset()):
            expected.append(event.revision)
        known[event.vm_uid] = names if len(names) > 1 else frozenset()
    recreating = [replace(vm(0, claim=recreate()), uid=uid) for uid in "vw"]
    for statuses in ([], recreating):
        assert [found.revision for found in breaches([*statuses, *history])] == expected


# --- edits by hand -----------------------------------------------------------------------------------------------


def judged(before: tuple[Seen, ...], edit: VMSeen, *after: Seen) -> list[Clause]:
    """The clauses that a history breaches in which a user edits a status by hand."""
    history = numbered(*before, edit, *after)
    return [breach.clause for breach in breaches(history, edited={len(before) + 1})]


def test_a_wiped_status_is_no_breach_and_what_follows_may_name_the_pod_again() -> None:
    """The number is read from the pod."""
    assert judged(START, vm(None, None), vm(0)) == []
    assert judged(MOVED, vm(None, None), vm(1, "n2")) == []


def test_a_status_that_is_wiped_while_copying_excuses_the_two_pods() -> None:
    """The memory is raised, and one of them is deleted."""
    assert judged(COPYING, vm(None, None), vm(0, last=1), terminating(1, "n2"), deleted(1, "n2")) == []
    assert judged(COPYING, vm(None, None), vm(1, "n2", last=1), deleted(0)) == []
    assert judged(COPYING, vm(0), vm(0, last=1), terminating(1, "n2"), deleted(1, "n2")) == []


def test_no_other_pod_becomes_the_vm_while_the_recorded_one_lives() -> None:
    """Although a user removed the claim and the memory."""
    assert judged(COPYING, vm(0), vm(1, "n2")) == [Clause.SUCCESSOR]


def test_a_third_pod_beside_two_excused_ones_is_a_breach() -> None:
    """So is a new one beside the last of them."""
    assert judged(COPYING, vm(0), replace(created(0), uid="x", name="x")) == [Clause.NUMBER, Clause.PODS]
    assert judged(COPYING, vm(None, None), deleted(1, "n2"), created(2)) == [Clause.PODS]


def test_a_number_that_a_user_made_the_status_forget_may_come_again() -> None:
    """Of pods that no longer exist nothing else remembers it."""
    gone = (*ABORTED, deleted(0))
    assert (
        judged(gone, vm(None, None), created(0, name="x"), vm(0, None), deleted(0, None, name="x"), vm(1, None)) == []
    )


def test_a_number_of_a_pod_that_is_deleted_before_anyone_reads_it_may_come_again() -> None:
    """Once the status remembers it again, it may not."""
    again = created(0, name="x")
    assert judged(COPYING, vm(None, None), deleted(0), deleted(1, "n2"), again) == []
    assert judged(COPYING, vm(None, None), deleted(1, "n2"), vm(0), deleted(0), again) == [Clause.NUMBER]


def test_the_other_end_becomes_the_vm_after_the_one_that_was_recorded_again() -> None:
    """It has existed all the time: no number is given out."""
    assert judged(COPYING, vm(None, None), vm(0, last=1), deleted(0), vm(1, "n2", last=1)) == []
    assert judged(COPYING, vm(0), vm(0, last=1), deleted(0), deleted(1, "n2"), vm(2, None, last=2)) == []


def test_the_same_writes_by_the_controller_are_breaches() -> None:
    """Only a user may forget."""
    assert {breach.clause for breach in breaches(numbered(*COPYING, vm(None, None)))} == {Clause.MEMORY, Clause.PODS}
