"""Preflight: which node has capacity for a VM that is to migrate, before anything is claimed.

Guarantees: pure. A permanent refusal is distinct from a temporary one. Equal demands get equal answers. A refusal
counts the nodes by reason, as the scheduler does, and names the node that comes closest. Pods of lower priority count
as free only if no node has capacity beside them, and only where the scheduler would preempt them: no preemption makes
an excluded node eligible. An overbooked node is described, and is no error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from controller.domain import capacity, scheduling
from controller.domain.capacity import Amount
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import Claim, VMSpec
from controller.domain.vm import placement
from controller.kube.kinds import Node
from controller.kube.scheduling import Toleration

_TOO_SMALL: Final = "too small"
_FULL: Final = "without room"
_ZERO: Final = Decimal(0)
_EDITED_CLASS: Final = "No preemption is counted on: its priorityClassName was edited after its pod was made"


def wrong_target(wanted: str, target: Node | None, tolerations: Iterable[Toleration]) -> Refused | None:
    """Return why the node that a migration names cannot be its target; None if it can be. The VM has `tolerations`."""
    if target is None:
        return Refused(Reason.TARGET_NOT_FOUND, f"There is no node {wanted}", for_good=True)
    if target.spec.unschedulable and scheduling.repels(scheduling.UNSCHEDULABLE, tolerations):
        return Refused(Reason.TARGET_UNSCHEDULABLE, f"Node {wanted} is cordoned", for_good=True)
    return None


class Found(msgspec.Struct, frozen=True):
    """The node that has capacity for a VM; `by_preemption`: once the scheduler has preempted pods there."""

    node: str
    by_preemption: bool = False


class _Miss(msgspec.Struct, frozen=True):
    """A node that lacks capacity: now it has `free`, and `most` without the pods of lower priority.

    `share`: what it lacks then, as a share of the request, above 1 if it is overbooked.
    """

    share: Decimal
    node: str
    free: Amount
    most: Amount


def find_node(
    wanted: Demand,
    nodes: Iterable[Node],
    used: Callable[[str], Amount],
    below: Callable[[str, int], Iterable[tuple[int, Amount]]],
) -> Found | Refused:
    """Return the node with the most free capacity for the VM, or why no node fits, ever or now.

    `used` returns what is requested and reserved on a node; `below` the part of it that pods of lower priorities
    request, by priority, the lowest first. The node with the largest free share is chosen, as by the scheduler's
    default. If none fits, it preempts: the node is chosen whose most important victim has the lowest priority, as by
    the scheduler, and of several the one that lacks the least, then the first by name.
    """
    why: Counter[str] = Counter()
    best: tuple[Decimal, str] | None = None
    able: list[str] = []
    full: list[tuple[str, Amount]] = []
    for node in nodes:
        name = node.metadata.name
        if (obstacle := capacity.obstacle(node, wanted.requirements, wanted.placement)) is not None:
            why[obstacle] += 1
            continue
        whole = capacity.allocatable(node)
        if not wanted.amount.fits(whole):
            why[_TOO_SMALL] += 1
            continue
        able.append(name)
        free = whole - used(name)
        if wanted.amount.fits(free):
            found = (free_share(free, whole), name)
            best = found if best is None or found[0] > best[0] else best
        else:
            why[_FULL] += 1
            full.append((name, free))
    if best is not None:
        return Found(best[1])
    beyond = _beyond_free(wanted, full, below)
    return beyond if isinstance(beyond, Found) else _refused(wanted, why, able, beyond)


def _beyond_free(
    wanted: Demand, full: Iterable[tuple[str, Amount]], below: Callable[[str, int], Iterable[tuple[int, Amount]]]
) -> Found | _Miss | None:
    """Return the node that fits by preemption, or else the one that lacks the least; None if there is none."""
    preemptions: list[tuple[int, Decimal, str]] = []
    misses: list[_Miss] = []
    for name, free in full:
        lower = below(name, wanted.priority) if wanted.priority is not None else ()
        highest, most = _preempted(wanted.amount, free, lower)
        if highest is None:
            misses.append(_Miss(_missing_share(wanted.amount, most), name, free, most))
        else:
            preemptions.append((highest, _missing_share(wanted.amount, free), name))
    if preemptions:
        return Found(min(preemptions)[-1], by_preemption=True)
    return min(misses, key=lambda miss: (miss.share, miss.node), default=None)


def note(claim: Claim, spec: VMSpec) -> tuple[str, str] | None:
    """Return what a user has to know about the node of a claim, as a reason and a message; None if it is plain room."""
    if claim.reserved_node is None:
        return None
    left = placement.left_to_scheduler(spec)
    if not (claim.by_preemption or left):
        return None
    how = " by preemption of pods of lower priority" if claim.by_preemption else ""
    rest = f"; not judged, since only the scheduler can: {', '.join(left)}" if left else ""
    reason = "ByPreemption" if claim.by_preemption else "NotJudged"
    return reason, f"Preflight found room on node {claim.reserved_node}{how}{rest}"


def _refused(wanted: Demand, why: Counter[str], able: list[str], nearest: _Miss | None) -> Refused:
    parts = [f"{count} {reason}" for reason, count in sorted(why.items(), key=_order)]
    if nearest is not None:
        parts[-1] += f" ({_described(nearest, wanted.amount)})"
    counts = f"0/{why.total()} nodes fit: {', '.join(parts)}" if parts else "there are no nodes"
    if not able:
        eligible = why[_TOO_SMALL]
        head = f"None of {eligible} eligible nodes could ever hold it" if eligible else "No node is eligible"
        where = wanted.placement.node or f"any but {wanted.source}"
        return Refused(Reason.NO_SUITABLE_NODE, f"{head} ({where}): {counts}", for_good=True)
    only = f"{able[0]}, the only suitable node, has no"
    which = only if len(able) == 1 else f"None of {len(able)} suitable nodes has"
    edited = f". {_EDITED_CLASS}" if wanted.edited_class else ""
    return Refused(Reason.NO_ROOM, f"{which} room for it now: {counts}{edited}", for_good=False)


def _order(item: tuple[str, int]) -> tuple[bool, int, str]:
    """Sort key of reasons: the most frequent first; lack of capacity last, since the closest node is added to it."""
    reason, count = item
    return reason == _FULL, -count, reason


def free_share(free: Amount, whole: Amount) -> Decimal:
    """Return the mean share of a node's CPU and memory that is free; below 0 if it is not known."""
    if whole.unknown or free.unknown:
        return Decimal(-1)  # a node with known capacity is preferred
    shares = [part / total for part, total in ((free.cpu, whole.cpu), (free.memory, whole.memory)) if total]
    return sum(shares, _ZERO) / len(shares) if shares else _ZERO


def _preempted(needed: Amount, free: Amount, lower: Iterable[tuple[int, Amount]]) -> tuple[int | None, Amount]:
    """Preempt all pods of one priority after the other, the lowest first, until an amount fits.

    Return the last of these priorities, None if the amount does not fit after all of them, and what is free then. The
    scheduler spares whom it can, the highest priority first, so that its most important victim has this priority, too.
    """
    for priority, held in lower:
        free += held
        if needed.fits(free):
            return priority, free
    return None, free


def _missing(needed: Amount, free: Amount) -> Amount:
    """Return what an amount lacks. A resource of which it needs none may be overbooked."""
    return Amount(
        max(needed.cpu - free.cpu, _ZERO) if needed.cpu else _ZERO,
        max(needed.memory - free.memory, _ZERO) if needed.memory else _ZERO,
        max(needed.pods - free.pods, 0),
    )


def _missing_share(needed: Amount, free: Amount) -> Decimal:
    missing = _missing(needed, free)
    shares = [Decimal(missing.pods)]
    if missing.cpu:
        shares.append(missing.cpu / needed.cpu)
    if missing.memory:
        shares.append(missing.memory / needed.memory)
    return max(shares)


def _described(miss: _Miss, needed: Amount) -> str:
    """Return a node and what it lacks, in words: never a negative number."""
    missing = _missing(needed, miss.most)
    places = "a place for one more pod" if missing.pods == 1 else f"places for {missing.pods} more pods"
    lacks = f"lacks {_in_words(missing, places)}{' even by preemption' if miss.most is not miss.free else ''}"
    over = Amount(max(-miss.free.cpu, _ZERO), max(-miss.free.memory, _ZERO), max(-miss.free.pods, 0))
    if over == capacity.NOTHING:
        return f"{miss.node} {lacks}"
    pods = "1 pod" if over.pods == 1 else f"{over.pods} pods"
    return f"{miss.node} is overbooked by {_in_words(over, pods)}, and {lacks}"


def _in_words(amount: Amount, pods: str) -> str:
    parts = (
        f"{_plain(amount.cpu)} CPU" if amount.cpu else "",
        f"{_plain(amount.memory / 2**30)} GiB of memory" if amount.memory else "",
        pods if amount.pods else "",
    )
    return " and ".join(filter(None, parts))


def _plain(number: Decimal) -> str:
    """Format a positive number with three decimals at most, and never as 0."""
    rounded = max(number.quantize(Decimal("0.001"), ROUND_HALF_UP), Decimal("0.001"))
    return f"{rounded:f}".rstrip("0").rstrip(".")
