"""Verdict on the live pods of each VM: one, or the two ends of the one live move that the VM's status claims.

Guarantees: pure in the events. They are judged in the order of their revisions, in whatever order several watches
delivered them, so that each version of a pod is judged by the status of its VM at or before it. `live` means that the
pod exists and is in no terminal phase; a terminating pod is live. Each breach is reported once. `Clause` has the rules.

The *ends* of a live move are its source and its target: the pods whose numbers (incarnations) the claim names. The
history begins with the VM, or while no VM moves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from controller.domain.objects import Claim, GuestMode
from controller.observe.history import MigrationSeen, PodSeen, Seen, VMSeen


class Clause(StrEnum):
    """What holds at every version."""

    PODS = "two live pods at most, and two only while the status claims a live move: the claim outlives the second pod"
    ENDS = "two live pods have the numbers of the claim's ends"
    NODES = "the ends are on two nodes"
    NAMED = "the status names exactly one of two ends, by number, pod and node"
    NODE = "a pod's node never changes"
    NUMBER = "of the numbers of ends, none is that of two pods"
    TURN = "a new pod has the number of the status, or of the claim's target"
    GIVEN = "a number is given out once, and a target's in the write that claims"
    MEMORY = "the highest number ever given out is not forgotten"
    HAND_OVER = "one write hands over, in a claim that is not aborting, to a target that ran: number, pod and node"
    SUCCESSOR = "while the pod of the status lives, no other becomes the VM, but by hand-over or the claim of Recreate"
    CLAIM = "a claim moves the pod of the status, and its ends stay until it is removed"
    ABORT = "an abort is not undone, and after the hand-over only post-copy is aborted"
    OUTCOME = "a live move succeeds only by its hand-over"


@dataclass(frozen=True, slots=True)
class Breach:
    """A breach of a clause, at the event of this time and revision."""

    at: float
    revision: int
    clause: Clause
    what: str


_Found: TypeAlias = Iterator[tuple[Clause, str]]


def breaches(events: Iterable[Seen], *, edited: Collection[int] = ()) -> list[Breach]:
    """Return every breach in a history. `edited`: the revisions at which a user edited the status of a VM by hand."""
    ends = Ends()
    found: list[Breach] = []
    judged = (event for event in events if isinstance(event, PodSeen | VMSeen | MigrationSeen))
    for event in sorted(judged, key=lambda event: event.revision):
        found += ends.see(event, by_hand=event.revision in edited)
    return found


@dataclass(slots=True)
class _VM:
    """A VM, and everything about its pods that the clauses need; pods are identified by their UIDs.

    `known`: the last state of each pod ever seen. `first`: the pod that had a number first. `end_numbers`: numbers of
    the ends of live moves. `excused`: pods that lived when a user edited the status. `reported`: the last breach of two
    live pods, and the pods concerned.
    """

    name: str
    status: VMSeen | None = None
    known: dict[str, PodSeen] = field(default_factory=dict)
    live: dict[str, PodSeen] = field(default_factory=dict)
    first: dict[int, str] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    end_numbers: set[int] = field(default_factory=set)
    excused: frozenset[str] = frozenset()
    reported: tuple[Clause, frozenset[str]] | None = None


class Ends:
    """The VMs after the events so far, which have to come in the order of their revisions."""

    def __init__(self) -> None:
        self._vms: dict[str, _VM] = {}
        self._owners: dict[str, str] = {}
        self._claimed: set[str] = set()
        self._handed_over: set[str] = set()

    def see(self, event: Seen, *, by_hand: bool = False) -> list[Breach]:
        """Apply an event, and return the breaches that it causes. `by_hand`: a user edited the status of this VM."""
        match event:
            case PodSeen():
                found = list(self._pod(event))
            case VMSeen():
                found = list(self._vm(event, by_hand=by_hand))
            case MigrationSeen():
                found = list(self._migration(event))
            case _:
                return []
        return [Breach(event.at, event.revision, clause, what) for clause, what in found]

    def _of(self, uid: str, name: str) -> _VM:
        return self._vms.setdefault(uid, _VM(name))

    # --- pods ------------------------------------------------------------------------------------------------

    def _pod(self, event: PodSeen) -> _Found:
        owner = self._owners.get(event.uid, "")
        if owner and owner != event.vm_uid:
            self._vms[owner].live.pop(event.uid, None)  # its VM does not control it any more
        if not event.vm_uid:
            return
        self._owners[event.uid] = event.vm_uid
        vm = self._of(event.vm_uid, event.vm)
        before = vm.known.get(event.uid)
        if before is None:
            yield from _born(vm, event)
        else:
            event = replace(event, incarnation=before.incarnation)  # a user may remove the annotation
            if before.node is not None and event.node != before.node:
                yield Clause.NODE, f"pod {event.name} of VM {vm.name} goes from node {before.node} to {event.node}"
        vm.known[event.uid] = event
        if event.phase == "Running":
            vm.ran.add(event.uid)
        if event.live:
            vm.live[event.uid] = event
        else:
            vm.live.pop(event.uid, None)
        yield from _count(vm)

    # --- VMs -------------------------------------------------------------------------------------------------

    def _vm(self, event: VMSeen, *, by_hand: bool) -> _Found:
        vm = self._of(event.uid, event.name)
        before, vm.status = vm.status, event
        if (claim := event.claim) is not None and claim.is_live:
            self._claimed.add(claim.uid)
            numbers = claim.source_incarnation, claim.target_incarnation
            vm.end_numbers.update(number for number in numbers if number is not None)
        if by_hand:
            _excuse(vm)
        elif before is not None:
            yield from _memory(vm, before, event)
            yield from _claim(vm, before, event)
            yield from self._incarnation(vm, before, event)
        yield from _count(vm)

    def _incarnation(self, vm: _VM, before: VMSeen, after: VMSeen) -> _Found:
        """Judge a change of the number that says which pod is the VM."""
        old, new, claim = before.incarnation, after.incarnation, before.claim
        if old is None or new is None or old == new:
            return
        step = f"VM {vm.name} goes from incarnation {old} to {new}"
        if claim is not None and claim.is_live:
            if (old, new) == (claim.source_incarnation, claim.target_incarnation):
                self._handed_over.add(claim.uid)
                for why in _unlawful(vm, claim, after):
                    yield Clause.HAND_OVER, f"{step} {why}"
                return
            if after.claim is not None:
                yield Clause.HAND_OVER, f"{step}, which is no hand-over of its claim"
                return
        if new <= _highest(before) and vm.first.get(new) not in vm.excused:
            yield Clause.GIVEN, f"{step}, although {_highest(before)} was given out before"
        recreates = any(each is not None and not each.is_live for each in (claim, after.claim))
        # Not another pod of that number, which a create that commits late may make.
        same = (pod for pod in vm.live.values() if pod.incarnation == old and before.pod_uid in (None, pod.uid))
        alive = next((pod.name for pod in same), None)
        if alive is not None and not recreates:
            yield Clause.SUCCESSOR, f"{step} while pod {alive} lives"

    # --- migrations ------------------------------------------------------------------------------------------

    def _migration(self, event: MigrationSeen) -> _Found:
        if event.phase == "Succeeded" and event.uid in self._claimed - self._handed_over:
            self._claimed.discard(event.uid)  # reported once
            yield Clause.OUTCOME, f"migration {event.name} of VM {event.vm} succeeds without a hand-over"


def _born(vm: _VM, pod: PodSeen) -> _Found:
    """Judge the number of a new pod."""
    number, status = pod.incarnation, vm.status
    if number is None:
        return
    first = vm.first.setdefault(number, pod.uid)
    if first in vm.excused and (status is None or _highest(status) < number):
        vm.first[number] = first = pod.uid  # nobody remembers it
    if first != pod.uid and number in vm.end_numbers:
        yield Clause.NUMBER, f"pod {pod.name} of VM {vm.name} has number {number}, which an earlier pod had"
    if status is None or status.incarnation is None:
        return
    claim = status.claim
    target = claim.target_incarnation if claim is not None and claim.is_live else None
    if number not in (status.incarnation, target):
        now = f"{status.incarnation} or {target}" if target is not None else f"{status.incarnation}"
        yield Clause.TURN, f"pod {pod.name} of VM {vm.name} comes with number {number} while it is {now}'s turn"


def _excuse(vm: _VM) -> None:
    """Take the status as a user left it: what it forgot is forgotten, and the pods that live now are excused.

    Any of them may become the VM; and a number of theirs may come again that nobody read before its pod was deleted.
    """
    vm.excused = frozenset(vm.live)
    vm.first = {number: uid for number, uid in vm.first.items() if not vm.known[uid].deleted}
    vm.end_numbers &= vm.first.keys()


def _highest(status: VMSeen) -> int:
    """Return the highest number that a status remembers; -1 if it remembers none."""
    return max(-1 if number is None else number for number in (status.last_incarnation, status.incarnation))


def _memory(vm: _VM, before: VMSeen, after: VMSeen) -> _Found:
    if _highest(after) < _highest(before):
        yield Clause.MEMORY, f"VM {vm.name} forgets number {_highest(before)}: it remembers {_highest(after)}"


def _claim(vm: _VM, before: VMSeen, after: VMSeen) -> _Found:
    """Judge a change of the claim, if a live one is concerned."""
    old, new = before.claim, after.claim
    if new is None or not (new.is_live or (old is not None and old.is_live)):
        return
    who = f"the claim of migration {new.name} on VM {vm.name}"
    if old is not None and old.uid != new.uid:
        yield Clause.CLAIM, f"{who} replaces that of migration {old.name} in one write"
    elif old is not None and (old.strategy, old.source_incarnation) != (new.strategy, new.source_incarnation):
        yield Clause.CLAIM, f"{who} changes its strategy or its source"
    elif old is None and not new.source_incarnation == before.incarnation == after.incarnation:
        yield Clause.CLAIM, f"{who} moves number {new.source_incarnation}, and the VM is {after.incarnation}"
    if not new.is_live:
        return
    target, same = new.target_incarnation, old if old is not None and old.uid == new.uid else None
    if (same is None or target != same.target_incarnation) and (target is None or target <= _highest(before)):
        yield Clause.GIVEN, f"{who} gives its target number {target}, although {_highest(before)} was given out before"
    if target is not None and (after.last_incarnation is None or after.last_incarnation < target):
        yield Clause.MEMORY, f"{who} gives its target number {target}, which the status does not remember"
    if same is not None and same.aborting is not None and new.aborting is None:
        yield Clause.ABORT, f"{who} does not abort any more"
    begins = same is not None and same.aborting is None and new.aborting is not None
    if begins and before.incarnation == target and new.mode != GuestMode.POST_COPY:
        yield Clause.ABORT, f"{who} aborts although the VM runs in the target, with all of its memory"


def _unlawful(vm: _VM, claim: Claim, after: VMSeen) -> Iterator[str]:
    """Yield why a hand-over to the target of `claim` was none, as the end of a sentence."""
    if claim.aborting is not None:
        yield "although the move is being aborted"
    if after.claim is None or after.claim.uid != claim.uid:
        yield "in the write that removes the claim"
    target = vm.known.get(vm.first.get(claim.target_incarnation or 0, ""))
    if target is None:
        yield "although there was no such pod"
    elif target.uid not in vm.ran:
        yield f"although pod {target.name} never ran"
    elif (after.pod_uid, after.node) != (target.uid, target.node):
        yield f"without naming pod {target.name} and node {target.node}"


def _count(vm: _VM) -> _Found:
    """Judge the live pods; two that lived when a user edited the status are excused."""
    pods = sorted(vm.live.values(), key=lambda pod: pod.name)
    if len(pods) < 2 or vm.live.keys() <= vm.excused:  # noqa: PLR2004 - the second pod
        vm.reported = None
        return
    names = [pod.name for pod in pods]
    clause, why = _wrong(vm.status, pods)
    if clause is None:
        vm.reported = None
        return
    known = vm.reported
    vm.reported = clause, frozenset(names)
    if known is None or known[0] != clause or not frozenset(names) <= known[1]:
        yield clause, f"VM {vm.name} has {len(pods)} live pods: {', '.join(names)}{why}"


def _wrong(status: VMSeen | None, pods: list[PodSeen]) -> tuple[Clause | None, str]:
    """Return the clause that several live pods breach, and why, as the end of a sentence; None if none."""
    claim = status.claim if status is not None else None
    if status is None or claim is None or not claim.is_live or len(pods) > 2:  # noqa: PLR2004 - the two ends
        return Clause.PODS, ""
    numbers = claim.source_incarnation, claim.target_incarnation
    if {pod.incarnation for pod in pods} != set(numbers):
        return Clause.ENDS, f"; the claim's ends are numbers {numbers[0]} and {numbers[1]}"
    one, other = pods
    if one.node is not None and one.node == other.node:
        return Clause.NODES, f"; both are on node {one.node}"
    named = next((pod for pod in pods if pod.incarnation == status.incarnation), None)
    if named is None or (status.pod_uid, status.node) != (named.uid, named.node):
        said = f"number {status.incarnation}, pod UID {status.pod_uid}, node {status.node}"
        return Clause.NAMED, f"; the status names {said}"
    return None, ""
