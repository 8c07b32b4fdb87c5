"""First-fit-decreasing packing of VMs on nodes: whether the free capacity of the nodes suffices for them.

Guarantees: pure; a VM is placed only on nodes that its reach names. If all VMs fit, a placement exists; the scheduler
may choose another. VMs that may use the fewest nodes are placed first, of these the largest. The number of VMs that do
not fit is exact (`certain`) if, of the VMs that compete for the same nodes and fit one of them by themselves, either
all are placed or all are alike; else it is the result of this heuristic. 10,000 VMs on 1,000 nodes take half a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controller.scenario.free import FreeCapacity, Size, total

_NOWHERE: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Demand:
    """A VM to place: its group, and the index of its reach."""

    group: str
    name: str
    size: Size
    reach: int = 0


@dataclass(frozen=True, slots=True)
class Space:
    """A node that accepts VMs, and its free capacity."""

    name: str
    size: Size


@dataclass(frozen=True, slots=True)
class Reach:
    """The nodes that VMs with the same requirements may use, as ascending indices of the spaces.

    `barred` counts the other nodes by reason. `problem`: why there are none at all, if the reason is no node's.
    """

    spaces: tuple[int, ...] = ()
    barred: Mapping[str, int] = field(default_factory=lambda: _NOWHERE)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Unplaced:
    """The VMs of a group that do not fit, the size of the group (`of`), and the largest of these VMs, with its reach.

    `beyond`: the largest fits no node even before any VM is placed. `nearest` is the node that lacks the least for it:
    of its initial capacity if `beyond`, else of the remaining one; None if it may use no node.
    """

    group: str
    names: tuple[str, ...]
    of: int
    largest: Size
    reach: Reach
    beyond: bool
    nearest: Space | None


@dataclass(frozen=True, slots=True)
class Packing:
    """The result for all VMs on the nodes of their reaches."""

    vms: int
    spaces: int
    """The number of nodes that accept any of these VMs."""
    reaches: int
    """The number of different reaches: with one, all VMs may use the same nodes."""
    unplaced: tuple[Unplaced, ...]
    short: bool
    """Whether the VMs that may use any node request more than all these nodes have free."""
    certain: bool
    """Whether no other placement fits more VMs."""
    unjudged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What only the scheduler knows, and the groups that it concerns."""


class _Kind(NamedTuple):
    """VMs that differ only in their names."""

    reach: int
    size: Size


def pack(demands: Sequence[Demand], spaces: Sequence[Space], reaches: Sequence[Reach]) -> Packing:
    """Place VMs on nodes; return which do not fit."""
    alike: dict[_Kind, list[Demand]] = {}
    for demand in demands:
        alike.setdefault(_Kind(demand.reach, demand.size), []).append(demand)
    used = {kind.reach for kind in alike}
    within = [spaces[space].size for space in sorted({space for reach in used for space in reaches[reach].spaces})]
    sums, wanted = total(within), total(demand.size for demand in demands if reaches[demand.reach].spaces)

    def order(kind: _Kind) -> tuple[int, float, int, int]:
        return len(reaches[kind.reach].spaces), -kind.size.excess(sums), -kind.size.cpu, -kind.size.memory

    sizes, sets = [space.size for space in spaces], [reach.spaces for reach in reaches]
    free = FreeCapacity(sizes, sets)
    left: dict[_Kind, list[Demand]] = {}
    for kind in sorted(alike, key=order):
        same = alike[kind]
        if lost := same[free.fill(kind.reach, kind.size, len(same)) :]:
            left[kind] = lost
    empty = FreeCapacity(sizes, sets) if left else free
    beyond = {kind for kind in left if not empty.fits(kind.reach, kind.size)}
    remaining = [Space(space.name, size) for space, size in zip(spaces, free.left(), strict=True)]
    counts = Counter(demand.group for demand in demands)
    return Packing(
        vms=len(demands),
        spaces=len(within),
        reaches=len(used),
        unplaced=tuple(_unplaced(left, counts, beyond, empty=spaces, remaining=remaining, reaches=reaches)),
        short=wanted.excess(sums) > 1,
        certain=_certain(alike.keys() - beyond, left.keys() - beyond, reaches),
    )


def _certain(kinds: Collection[_Kind], lost: Collection[_Kind], reaches: Sequence[Reach]) -> bool:
    """Whether each lost kind competes with no other kind for any node: the order of VMs that are alike does not matter.

    `kinds` fit a node by themselves; the others take no capacity from them.
    """
    suitors: dict[int, _Kind] = {}
    disputed: set[int] = set()
    for kind in kinds if lost else ():
        for space in reaches[kind.reach].spaces:
            if suitors.setdefault(space, kind) != kind:
                disputed.add(space)
    return all(disputed.isdisjoint(reaches[kind.reach].spaces) for kind in lost)


def _unplaced(
    left: Mapping[_Kind, Sequence[Demand]],
    counts: Mapping[str, int],
    beyond: Collection[_Kind],
    *,
    empty: Sequence[Space],
    remaining: Sequence[Space],
    reaches: Sequence[Reach],
) -> Iterator[Unplaced]:
    groups: dict[str, list[_Kind]] = {}
    for kind, lost in left.items():
        for group in dict.fromkeys(demand.group for demand in lost):
            groups.setdefault(group, []).append(kind)
    for group, kinds in groups.items():
        largest = max(kinds, key=lambda kind: (kind in beyond, kind.size.cpu, kind.size.memory))
        names = tuple(demand.name for kind in kinds for demand in left[kind] if demand.group == group)
        reach, fits_none = reaches[largest.reach], largest in beyond
        among = [(empty if fits_none else remaining)[space] for space in reach.spaces]
        nearest = min(among, key=lambda space: largest.size.excess(space.size), default=None)
        yield Unplaced(group, names, counts[group], largest.size, reach, fits_none, nearest)
