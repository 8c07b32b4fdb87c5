"""How the exhaustive test of live moves has to end, by the intervention and the half of the move in which it strikes.

Guarantees: data. Besides, it always holds that no claim is left, that every migration is finished, and what
`controller.observe.ends` judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from itertools import product
from random import Random
from typing import Final, NamedTuple

from controller.domain.migration.phases import Reason
from controller.observe.ends import Clause
from tests.exhaustive.live import (
    OF_LIVE,
    POINTS,
    Half,
    Holds,
    Point,
    aborting,
    aborts_without_target,
    claims_only,
    copies,
    handed_over,
)
from tests.unit.reconcilers.harness import VMS_FIRST


class Now(Enum):
    """Which pod is the VM in the end; it runs if a node takes it, and else waits for one."""

    SOURCE = auto()
    TARGET = auto()
    LATER = auto()
    """A pod with a later number than both."""
    ANY = auto()
    STOPPED = auto()
    GONE = auto()


class End(NamedTuple):
    """How a move may end.

    `outcomes`: of migration m-1: Succeeded, or why it failed; none if it was deleted, by a user or with its VM.
    `recorded`: the evictions that have a record, as their reasons. `unseen`: they may have none, unseen by controllers.
    """

    outcomes: frozenset[str]
    now: frozenset[Now]
    recorded: tuple[str, ...] = ()
    unseen: bool = False


def _end(outcomes: str, now: str, *recorded: str) -> End:
    return End(frozenset(outcomes.split()), frozenset(Now[name] for name in now.split()), recorded)


_MOVED: Final = _end("Succeeded", "TARGET")
_STAYED: Final = _end("Cancelled", "SOURCE")
_GONE: Final = _end("", "GONE")
ENDS: Final[dict[str, tuple[End, End, End]]] = {
    "nothing": (_MOVED, _MOVED, _STAYED),
    "stop": (_end("VMStopped", "STOPPED"), _end("Succeeded", "STOPPED"), _end("Cancelled", "STOPPED")),
    "start": (_MOVED, _MOVED, _STAYED),
    "delete VM": (_GONE, _GONE, _GONE),
    "delete VM with a finalizer": (
        _end("VMDeleted", "STOPPED"),
        _end("Succeeded", "STOPPED"),
        _end("Cancelled", "STOPPED"),
    ),
    # Both ends at once; before the target exists, the source alone.
    "delete pod": (_end("SourceLost TargetLost", "LATER"), _end("Succeeded", "LATER"), _end("Cancelled", "LATER")),
    "fail pod": (_end("SourceLost TargetFailed", "LATER"), _end("Succeeded", "LATER"), _end("Cancelled", "LATER")),
    "delete target node": (
        _end("TargetLost TargetUnschedulable", "SOURCE"),
        _end("Succeeded", "LATER", "NodeLost"),
        _STAYED,
    ),
    "delete source node": (_end("SourceLost", "LATER", "NodeLost"), _MOVED, _end("Cancelled", "LATER", "NodeLost")),
    "cordon target": (_end("Succeeded TargetUnschedulable", "SOURCE TARGET"), _MOVED, _STAYED),
    "cancel": (_STAYED, _MOVED, _STAYED),
    "delete migration": (_end("", "SOURCE"), _end("", "TARGET"), _end("", "SOURCE")),
    # Refused while the first is on its way; it waits while the first one's claim is cleaned up, and then moves the VM.
    "second migration": (_end("Succeeded", "TARGET LATER"), _end("Succeeded", "LATER"), _end("Cancelled", "LATER")),
    "evict source": (_end("SourceLost", "LATER", "Evicted"), _MOVED, _end("Cancelled", "LATER", "Evicted")),
    "evict target": (_end("Succeeded TargetLost", "SOURCE TARGET"), _end("Succeeded", "LATER", "Evicted"), _STAYED),
    "preempt source": (_end("SourceLost", "LATER", "Preempted"), _MOVED, _end("Cancelled", "LATER", "Preempted")),
    "preempt target": (
        _end("Succeeded TargetLost", "SOURCE TARGET"),
        _end("Succeeded", "LATER", "Preempted"),
        _STAYED,
    ),
    "fail source": (_end("SourceLost", "LATER"), _MOVED, _end("Cancelled", "LATER")),
    "fail target": (_end("Succeeded TargetFailed", "SOURCE TARGET"), _end("Succeeded", "LATER"), _STAYED),
    "force-delete source": (_end("SourceLost", "LATER"), _MOVED, _end("Cancelled", "LATER")),
    "force-delete target": (_end("Succeeded TargetLost", "SOURCE TARGET"), _end("Succeeded", "LATER"), _STAYED),
    # Its node is silent for ever; a VM that was handed over before goes on there, not ready.
    "target node not ready": (_end("Succeeded TargetNodeNotReady", "SOURCE TARGET"), _MOVED, _STAYED),
    "quota lowered": (_end("Succeeded QuotaExceeded TargetRefused", "SOURCE TARGET"), _MOVED, _STAYED),
    "edit of affinity": (_end("Succeeded TargetUnschedulable", "SOURCE TARGET"), _MOVED, _STAYED),
    "class changed": (_MOVED, _MOVED, _STAYED),
    "status wiped": (
        _end("ClaimLost VMNotRunning", "SOURCE"),  # the latter if the migration knows of no claim
        _end("Succeeded ClaimLost", "SOURCE TARGET"),
        _end("Cancelled ClaimLost", "SOURCE"),
    ),
    "speed changed by a restart": (_MOVED, _MOVED, _STAYED),
    "a leader of the release before": (
        _end("Succeeded ClaimLost TargetLost RolledBack", "ANY"),
        _end("Succeeded ClaimLost TargetLost", "ANY"),
        _end("Succeeded Cancelled", "ANY"),
    ),
}
"""How each intervention ends before the hand-over, after it, and while the abort of a cancelled move is cleaned up."""

_TOLD: Final[dict[str, End]] = {
    "delete target node": _end("TargetLost", "SOURCE"),
    "cordon target": _MOVED,
    "evict target": _end("TargetLost", "SOURCE"),
    "preempt target": _end("TargetLost", "SOURCE"),
    "fail target": _end("TargetFailed", "SOURCE"),
    "force-delete target": _end("TargetLost", "SOURCE"),
    "target node not ready": _end("TargetNodeNotReady", "SOURCE"),
    "quota lowered": _MOVED,
    "edit of affinity": _MOVED,
    "status wiped": _end("ClaimLost", "SOURCE"),
}
"""How those before the hand-over end that depend on the target, once the migration has told that it exists."""
LENIENT: Final[dict[str, frozenset[Clause]]] = {
    "a leader of the release before": frozenset(
        {
            Clause.PODS,
            Clause.NAMED,
            Clause.NUMBER,
            Clause.TURN,
            Clause.GIVEN,
            Clause.HAND_OVER,
            Clause.SUCCESSOR,
            Clause.OUTCOME,
        }
    ),
}
"""The clauses that an intervention may breach while a controller leads that knows no live move.

It keeps the higher number, and gives the number out again whose pod is gone.
"""
_RESTARTED: Final = _end("PostCopyLost", "LATER")
_IN_POST_COPY: Final[dict[str, End]] = {
    **dict.fromkeys(("stop", "delete VM with a finalizer"), _end("PostCopyLost", "STOPPED")),
    **dict.fromkeys(
        (
            *("delete pod", "fail pod", "delete source node", "evict source", "preempt source"),
            *("fail source", "fail target", "force-delete source", "force-delete target"),
        ),
        _RESTARTED,
    ),
    "delete target node": _end("PostCopyLost", "LATER", "NodeLost"),
    "evict target": _end("PostCopyLost", "LATER", "Evicted"),
    "preempt target": _end("PostCopyLost", "LATER", "Preempted"),
}
"""How those end that strike in post-copy, in which the VM needs both pods; the others end as after the hand-over."""
_LOST_IN_POST_COPY: Final[dict[str, End]] = {
    "stop": _end("PostCopyLost", "STOPPED"),
    "delete VM": _GONE,
    "delete VM with a finalizer": _end("PostCopyLost", "STOPPED"),
    "delete target node": _end("PostCopyLost", "LATER", "NodeLost"),
    "delete migration": _end("", "LATER"),
    "evict target": _end("PostCopyLost", "LATER", "Evicted"),
    "preempt target": _end("PostCopyLost", "LATER", "Preempted"),
    # The target's pod is the only one that runs; that it lost a part of its memory is forgotten.
    "status wiped": _end("ClaimLost PostCopyLost", "TARGET", "Evicted"),
    "a leader of the release before": _end("Succeeded ClaimLost TargetLost PostCopyLost", "ANY"),
}
"""How those end that strike when the VM was lost in post-copy; with the others it restarts."""
_UNTRACEABLE: Final = {"status wiped", "class changed"}
"""At once, they leave the controller of the new class neither a number nor a label by which it could find the pod."""
STEPS: Final = 12
"""Steps in which an undisturbed move comes to its end, and one more."""
_HIDES: Final = (
    "stop",
    "delete VM with a finalizer",
    "delete pod",
    "fail pod",
    "force-delete source",
    "class changed",
)
"""Interventions after which no controller may see that a pod was evicted, or record it."""


class Order(Enum):
    """In which order the controller works on the queues of VMs and of migrations; `TOGETHER`: request by request."""

    VMS_FIRST = VMS_FIRST
    MIGRATIONS_FIRST = ("migrations",), ("vms",)
    TOGETHER = (("vms", "migrations"),)


class Row(NamedTuple):
    """One run: the controller crashes at a step, and someone intervenes at once, before the next one takes over.

    `order`: which of the controller's queues is worked first. `prompt`: scheduler and kubelets act before a controller
    sees that they are about to.
    """

    point: Point
    intervention: str
    order: Order = Order.VMS_FIRST
    prompt: bool = False

    def __str__(self) -> str:
        """Return its name."""
        order = self.order.name.lower().replace("_", " ")
        return f"{self.point.name}: {self.intervention}; {order}{', promptly' if self.prompt else ''}"

    @property
    def end(self) -> End:
        """How the run has to end."""
        if self.point.half in (Half.POST_COPY, Half.LOST):
            lost = self.point.half is Half.LOST
            after = ENDS[self.intervention][1]
            return (_LOST_IN_POST_COPY if lost else _IN_POST_COPY).get(self.intervention, _RESTARTED if lost else after)
        found = ENDS[self.intervention][(Half.BEFORE, Half.AFTER, Half.ABORT).index(self.point.half)]
        if self.point.told:
            return _TOLD.get(self.intervention, found)
        if self.point.begin != "evict source" or found is _GONE:
            return found
        # The source was lost before: whatever keeps it otherwise, the VM restarts, and the eviction has its record.
        now = {Now.LATER if each is Now.SOURCE else each for each in found.now}
        if self.intervention == "status wiped":
            now.add(Now.TARGET)  # the only pod that runs is the VM
        outcomes = {"SourceLost" if each == Reason.CANCELLED else each for each in found.outcomes}
        unseen = self.point.reached is aborting and self.intervention in (*_HIDES, "a leader of the release before")
        return End(frozenset(outcomes), frozenset(now), ("Evicted",), unseen)


def rows(*, share: float = 1.0, seed: int = 1) -> Iterator[Row]:
    """Yield a share of all rows, chosen by a seed; every step without an intervention is among them."""
    rng = Random(seed)  # noqa: S311 - no secret
    for choice in product(POINTS, OF_LIVE, Order, (False, True)):
        row = Row(*choice)
        if row.intervention == "nothing" or rng.random() < share:
            yield row


class Pair(NamedTuple):
    """One run: two interventions, at two steps of a move whose controller goes on; see `Row`."""

    first: str
    second: str
    at: int
    later: int
    order: Order
    prompt: bool


def pairs(*, share: float = 1.0, seed: int = 1) -> Iterator[Pair]:
    """Yield a share of all pairs of interventions at all steps, chosen by a seed, as is the order of the queues."""
    rng = Random(seed)  # noqa: S311 - no secret
    acts = [name for name, found in OF_LIVE.items() if found.process is None]
    for first, second, at, gap in product(acts, acts, range(STEPS), (0, 1, 3)):
        pair = Pair(first, second, at, at + gap, rng.choice(tuple(Order)), prompt=rng.random() < 1 / 2)
        if rng.random() < share and not (gap == 0 and {first, second} == _UNTRACEABLE):
            yield pair


class Late(NamedTuple):
    """One run: the controller dies with its next `request` in flight, once `begins` holds; it commits `seconds` later.

    Meanwhile the next controller leads, and someone does `intervention`. With `aborts` the move is cancelled before,
    while it copies.
    """

    name: str
    begins: Holds
    request: str
    intervention: str
    end: End
    seconds: float = 10.0
    aborts: bool = False


_LOST: Final = _end("SourceLost", "LATER", "Evicted")
LATE: Final = (
    Late("create of the target", claims_only, "create pods", "nothing", _MOVED),
    Late("create of the target, cancelled meanwhile", claims_only, "create pods", "cancel", _STAYED),
    Late("create of the target, source lost meanwhile", claims_only, "create pods", "evict source", _LOST),
    Late("create of the target, migration deleted", claims_only, "create pods", "delete migration", _end("", "SOURCE")),
    Late("hand-over", copies, "patch virtualmachines", "nothing", _MOVED),
    Late("hand-over, cancelled meanwhile", copies, "patch virtualmachines", "cancel", _STAYED),
    Late(
        "hand-over, target lost meanwhile",
        copies,
        "patch virtualmachines",
        "evict target",
        _end("TargetLost", "SOURCE"),
    ),
    Late("hand-over, source lost meanwhile", copies, "patch virtualmachines", "evict source", _LOST),
    Late("deletion of the source", handed_over, "delete pods", "nothing", _MOVED),
    Late(
        "removal of the claim after an abort",
        aborts_without_target,
        "patch virtualmachines",
        "nothing",
        _STAYED,
        aborts=True,
    ),
    Late(
        "removal of the claim, and a new migration",
        aborts_without_target,
        "patch virtualmachines",
        "second migration",
        _end("Cancelled", "LATER"),
        aborts=True,
    ),
)
"""Requests of a dead leader that commit during its successor's run."""
