"""First-fit-decreasing packing of VMs on nodes: whether the free capacity of the nodes suffices for them.

Guarantees: pure; only nodes that match the launcher pods' node selector and tolerations count, and a VM's demand equals
the requests of its pod. If all VMs fit, a placement exists; the scheduler may choose another. The number of VMs that do
not fit is exact (`certain`) if none of these fits any node by itself, or if the VMs that do are of one size; else it
is the result of this heuristic. 10,000 VMs on 1,000 nodes take about half a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import ge
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from controller.domain import capacity, scheduling
from controller.domain.capacity import Amount
from controller.domain.settings import DEFAULTS
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Node, Pod
from controller.scenario.fleet import Fleet, node_manifest

_Free: TypeAlias = tuple[int, int, int, int, int]
"""CPU, memory, pods; the smaller of the shares of CPU and memory; the sum of these shares."""
_FAR: Final = 1 << 80
_NOTHING_FREE: Final[_Free] = (-_FAR, -_FAR, -_FAR, -_FAR, -_FAR)
_PARTS: Final = 1 << 20
_NOTHING: Final[Mapping[str, Amount]] = MappingProxyType({})
CPU_UNIT: Final = 1000
"""Millicores of a core."""


@dataclass(frozen=True, slots=True)
class Size:
    """The requests of a pod or the capacity of a node: millicores, bytes, pods."""

    cpu: int
    memory: int
    pods: int = 1

    @classmethod
    def of(cls, amount: Amount) -> Size:
        """Return an amount in whole units, rounded down."""
        return cls(int(amount.cpu * CPU_UNIT), int(amount.memory), amount.pods)

    def excess(self, free: Size) -> float:
        """Return the largest ratio of need to free capacity over all resources: above 1 it does not fit."""
        pairs = ((self.cpu, free.cpu), (self.memory, free.memory), (self.pods, free.pods))
        return max((need / has if has > 0 else float("inf")) if need else 0.0 for need, has in pairs)


@dataclass(frozen=True, slots=True)
class Demand:
    """A VM to place, and its group."""

    group: str
    name: str
    size: Size


@dataclass(frozen=True, slots=True)
class Space:
    """A node that accepts VMs, and its free capacity."""

    name: str
    size: Size


@dataclass(frozen=True, slots=True)
class Unplaced:
    """The VMs of a group that do not fit, the size of the group (`of`), and the largest of these VMs.

    `beyond`: the largest fits no node even before any VM is placed. `nearest` is the node that lacks the least for it:
    of its initial capacity if `beyond`, else of the remaining one.
    """

    group: str
    names: tuple[str, ...]
    of: int
    largest: Size
    beyond: bool
    nearest: Space


@dataclass(frozen=True, slots=True)
class Packing:
    """The result for all VMs on the nodes that accept VMs (`spaces`); `barred` counts the other nodes by reason."""

    vms: int
    spaces: int
    barred: Mapping[str, int]
    unplaced: tuple[Unplaced, ...]
    short: bool
    """Whether the sum of the demands exceeds the sum of the free capacity."""
    certain: bool
    """Whether no other placement fits more VMs."""


def pack(demands: Sequence[Demand], spaces: Sequence[Space], barred: Mapping[str, int]) -> Packing:
    """Place VMs on nodes; return which do not fit."""
    sums = _sum(space.size for space in spaces)
    wanted = _sum(demand.size for demand in demands)
    alike: dict[Size, list[Demand]] = {}
    for demand in demands:
        alike.setdefault(demand.size, []).append(demand)
    tree = _MaxTree([space.size for space in spaces])
    left: list[Demand] = []
    for size in sorted(alike, key=lambda size: (size.excess(sums), size.cpu, size.memory), reverse=True):
        same = alike[size]
        left += same[tree.fill(size, len(same)) :]
    empty = _MaxTree([space.size for space in spaces]) if left else tree
    lost = {demand.size for demand in left}
    beyond = {size for size in lost if not empty.fits(size)}
    remaining = [Space(space.name, size) for space, size in zip(spaces, tree.left(), strict=True)]
    counts = Counter(demand.group for demand in demands)
    return Packing(
        vms=len(demands),
        spaces=len(spaces),
        barred=barred,
        unplaced=tuple(_unplaced(left, counts, beyond, spaces, remaining)) if spaces else (),
        short=wanted.excess(sums) > 1,
        # The order of VMs of one size does not matter, and VMs that fit no node take no capacity from them.
        certain=lost == beyond or len(alike.keys() - beyond) == 1,
    )


def pack_fleet(
    fleet: Fleet,
    *,
    there: Iterable[Node] = (),
    used: Mapping[str, Amount] = _NOTHING,
    running: Collection[str] = (),
    policy: LauncherPolicy = DEFAULTS.policy,
) -> Packing:
    """Place the VMs of a fleet on its own nodes and on the existing ones.

    `used` is the requests of the pods on each node, including those of the VMs that are `running` already.
    """
    nodes = list(there)
    known = {node.metadata.name for node in nodes}
    made = (node_manifest(desired, fleet.name) for desired in fleet.nodes if desired.name not in known)
    nodes += [msgspec.convert(manifest, Node) for manifest in made]
    demands = [
        demand(vm.origin.group if vm.origin is not None else vm.name, vm.name, vm.cpu, vm.memory, policy)
        for vm in fleet.vms
        if vm.name not in running
    ]
    return pack(demands, *spaces_of(nodes, used, policy))


def used_by_node(pods: Iterable[Pod]) -> dict[str, Amount]:
    """Return the requests of the pods on each node, including pods that are nominated to it."""
    used: dict[str, Amount] = {}
    for pod in pods:
        if (holding := capacity.holding(pod)) is not None:
            node, amount = holding
            used[node] = used.get(node, capacity.NOTHING) + amount
    return used


def spaces_of(
    nodes: Iterable[Node], used: Mapping[str, Amount], policy: LauncherPolicy
) -> tuple[list[Space], dict[str, int]]:
    """Return the nodes that accept VMs with their free capacity, and the count of the others by reason."""
    spaces: list[Space] = []
    barred: Counter[str] = Counter()
    for node in nodes:
        name = node.metadata.name
        left = capacity.allocatable(node) - used.get(name, capacity.NOTHING)
        if (why := _obstacle(node, policy)) is not None:
            barred[why] += 1
        elif left.unknown:
            barred["with quantities that cannot be read"] += 1
        else:
            spaces.append(Space(name, Size.of(left)))
    return spaces, dict(barred)


def demand(group: str, name: str, cpu: str, memory: str, policy: LauncherPolicy) -> Demand:
    """Return the requests of a VM's pod; `cpu` and `memory` are shares of the reference node."""
    reference = policy.reference
    amount = Amount(Decimal(cpu) * reference.cpu, Decimal(memory) * reference.memory, 1)
    return Demand(group, name, Size.of(amount))


def _obstacle(node: Node, policy: LauncherPolicy) -> str | None:
    """Return why a node accepts no VM; None if it accepts VMs."""
    if node.spec.unschedulable:
        return "cordoned"
    labels = node.metadata.labels
    if lacking := next(
        (f"{key}={value}" for key, value in policy.node_selector.items() if labels.get(key) != value), None
    ):
        return f"without the label {lacking}"
    taint = next((taint for taint in node.spec.taints if scheduling.repels(taint, policy.tolerations)), None)
    if taint is None:
        return None
    return f"tainted {taint.key}{f'={taint.value}' if taint.value else ''}:{taint.effect}"


def _unplaced(
    left: Sequence[Demand],
    counts: Mapping[str, int],
    out_of_reach: Collection[Size],
    empty: Sequence[Space],
    remaining: Sequence[Space],
) -> Iterator[Unplaced]:
    groups: dict[str, list[Demand]] = {}
    for demand in left:
        groups.setdefault(demand.group, []).append(demand)
    for group, lost in groups.items():
        largest = lost[0].size  # they are sorted by size
        beyond = largest in out_of_reach
        among = empty if beyond else remaining
        nearest = min(among, key=lambda space: largest.excess(space.size))
        yield Unplaced(group, tuple(demand.name for demand in lost), counts[group], largest, beyond, nearest)


def _sum(sizes: Iterable[Size]) -> Size:
    cpu = memory = pods = 0
    for size in sizes:
        cpu, memory, pods = cpu + size.cpu, memory + size.memory, pods + size.pods
    return Size(cpu, memory, pods)


class _MaxTree:
    """The free capacity of nodes as a tree of maxima: finds the first node with the capacity for a VM without a scan.

    Besides each resource the tree has the smaller share of CPU and memory, and their sum: if one node has the CPU and
    its neighbour the memory, the maxima of single resources exclude neither.
    """

    def __init__(self, sizes: Sequence[Size]) -> None:
        self._count = len(sizes)
        self._most = (max([1, *(size.cpu for size in sizes)]), max([1, *(size.memory for size in sizes)]))
        self._leaves = 1 << max(0, len(sizes) - 1).bit_length()
        blank = [_NOTHING_FREE] * self._leaves
        leaves = [self._free(size.cpu, size.memory, size.pods) for size in sizes]
        self._tree = [*blank, *leaves, *blank[len(leaves) :]]
        for at in range(self._leaves - 1, 0, -1):
            self._raise(at)

    def fill(self, size: Size, count: int) -> int:
        """Place up to `count` VMs of a size; return how many fit."""
        placed = 0
        while placed < count and (at := self._first(size)) is not None:
            cpu, memory, pods, _, _ = self._tree[at]
            fitting = [count - placed, pods]
            fitting += [has // need for need, has in ((size.cpu, cpu), (size.memory, memory)) if need]
            taken = min(fitting)
            self._tree[at] = self._free(cpu - taken * size.cpu, memory - taken * size.memory, pods - taken)
            placed += taken
            while at > 1:
                at //= 2
                self._raise(at)
        return placed

    def fits(self, size: Size) -> bool:
        """Whether any node has capacity for a size."""
        return self._first(size) is not None

    def left(self) -> list[Size]:
        """Return the free capacity of each node."""
        return [Size(*free[:3]) for free in self._tree[self._leaves : self._leaves + self._count]]

    def _first(self, size: Size) -> int | None:
        # A demand of 0 fits even where a resource is overcommitted.
        wanted = self._free(size.cpu or -_FAR, size.memory or -_FAR, 1)
        waiting = [1]
        while waiting:
            at = waiting.pop()
            free = self._tree[at]
            if all(map(ge, free, wanted)):
                if at >= self._leaves:
                    return at
                waiting += (2 * at + 1, 2 * at)
        return None

    def _free(self, cpu: int, memory: int, pods: int) -> _Free:
        shares = (cpu * _PARTS // self._most[0], memory * _PARTS // self._most[1])
        return cpu, memory, pods, min(shares), sum(shares)

    def _raise(self, at: int) -> None:
        first, second = self._tree[2 * at], self._tree[2 * at + 1]
        self._tree[at] = (
            max(first[0], second[0]),
            max(first[1], second[1]),
            max(first[2], second[2]),
            max(first[3], second[3]),
            max(first[4], second[4]),
        )
