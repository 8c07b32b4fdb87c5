"""Preflight: which node has capacity for a VM that is to migrate, before anything is claimed.

Guarantees: pure. A permanent refusal is distinct from a temporary one. Equal demands get equal answers. A refusal
counts the nodes by reason, as the scheduler does, and names the node that comes closest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.kube.kinds import Node

_TOO_SMALL: Final = "too small"
_FULL: Final = "without room"


def wrong_target(wanted: str, target: Node | None) -> Refused | None:
    """Return why the node that a migration names cannot be its target; None if it can be."""
    if target is None:
        return Refused(Reason.TARGET_NOT_FOUND, f"There is no node {wanted}", for_good=True)
    if target.spec.unschedulable:
        return Refused(Reason.TARGET_UNSCHEDULABLE, f"Node {wanted} is cordoned", for_good=True)
    return None


class _Miss(msgspec.Struct, frozen=True, order=True):
    """The capacity that a node lacks: as a share of the request (1: all of it), and in words."""

    share: Decimal
    node: str
    lacks: str


def find_node(wanted: Demand, nodes: Iterable[Node], used: Callable[[str], Amount]) -> str | Refused:
    """Return the node with the most free capacity for the VM, or why no node fits, ever or now.

    `used` returns what is requested and reserved on a node. The node with the largest free share is chosen, as by the
    scheduler's default.
    """
    why: Counter[str] = Counter()
    best: tuple[Decimal, str] | None = None
    nearest: _Miss | None = None
    able: list[str] = []
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
            found = (_free_share(free, whole), name)
            best = found if best is None or found[0] > best[0] else best
        else:
            why[_FULL] += 1
            miss = _miss(name, wanted.amount, free)
            nearest = miss if nearest is None else min(miss, nearest)
    if best is not None:
        return best[1]
    return _refused(wanted, why, able, nearest)


def _refused(wanted: Demand, why: Counter[str], able: list[str], nearest: _Miss | None) -> Refused:
    parts = [f"{count} {reason}" for reason, count in sorted(why.items(), key=_order)]
    if nearest is not None:
        parts[-1] += f" ({nearest.node} lacks {nearest.lacks})"
    counts = f"0/{why.total()} nodes fit: {', '.join(parts)}" if parts else "there are no nodes"
    if not able:
        eligible = why[_TOO_SMALL]
        head = f"None of {eligible} eligible nodes could ever hold it" if eligible else "No node is eligible"
        where = wanted.placement.node or f"any but {wanted.source}"
        return Refused(Reason.NO_SUITABLE_NODE, f"{head} ({where}): {counts}", for_good=True)
    only = f"{able[0]}, the only suitable node, has no"
    which = only if len(able) == 1 else f"None of {len(able)} suitable nodes has"
    return Refused(Reason.NO_ROOM, f"{which} room for it now: {counts}", for_good=False)


def _order(item: tuple[str, int]) -> tuple[bool, int, str]:
    """Sort key of reasons: the most frequent first; lack of capacity last, since the closest node is added to it."""
    reason, count = item
    return reason == _FULL, -count, reason


def _free_share(free: Amount, whole: Amount) -> Decimal:
    if whole.unknown or free.unknown:
        return Decimal(-1)  # a node with known capacity is preferred
    shares = [part / total for part, total in ((free.cpu, whole.cpu), (free.memory, whole.memory)) if total]
    return sum(shares, Decimal(0)) / len(shares) if shares else Decimal(0)


def _miss(node: str, needed: Amount, free: Amount) -> _Miss:
    cpu, memory = needed.cpu - max(free.cpu, Decimal(0)), needed.memory - max(free.memory, Decimal(0))
    lacks: list[tuple[Decimal, str]] = []
    if cpu > 0:
        lacks.append((cpu / needed.cpu, f"{_plain(cpu)} CPU"))
    if memory > 0:
        lacks.append((memory / needed.memory, f"{_plain(memory / 2**30)} GiB of memory"))
    if needed.pods > free.pods:
        lacks.append((Decimal(1), "a place for one more pod"))
    return _Miss(max(share for share, _ in lacks), node, " and ".join(text for _, text in lacks))


def _plain(number: Decimal) -> str:
    """Format a positive number with three decimals at most, and never as 0."""
    rounded = max(number.quantize(Decimal("0.001"), ROUND_HALF_UP), Decimal("0.001"))
    return f"{rounded:f}".rstrip("0").rstrip(".")
