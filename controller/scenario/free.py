"""Free capacity of nodes: finds the first node of a set that has room for a VM, without a scan.

Guarantees: what is taken from a node is missing in every set that contains it; nodes are found in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import ge
from typing import Final, TypeAlias

from controller.domain.capacity import Amount

_Free: TypeAlias = tuple[int, int, int, int, int]
"""CPU, memory, pods; the smaller of the shares of CPU and memory; the sum of these shares."""
_FAR: Final = 1 << 80
_NOTHING_FREE: Final[_Free] = (-_FAR, -_FAR, -_FAR, -_FAR, -_FAR)
_PARTS: Final = 1 << 20
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


def total(sizes: Iterable[Size]) -> Size:
    """Return the sum."""
    cpu = memory = pods = 0
    for size in sizes:
        cpu, memory, pods = cpu + size.cpu, memory + size.memory, pods + size.pods
    return Size(cpu, memory, pods)


class FreeCapacity:
    """The free capacity of nodes, which are numbered from 0. `sets` are those in which room is looked for, ascending.

    Each different set has a tree of maxima. Besides each resource a tree has the smaller share of CPU and memory, and
    their sum: if one node has the CPU and its neighbour the memory, the maxima of single resources exclude neither.
    """

    def __init__(self, sizes: Sequence[Size], sets: Sequence[tuple[int, ...]]) -> None:
        self._most = (max([1, *(size.cpu for size in sizes)]), max([1, *(size.memory for size in sizes)]))
        self._free = [self._with_shares(size.cpu, size.memory, size.pods) for size in sizes]
        trees = {nodes: _MaxTree(self._free, nodes) for nodes in dict.fromkeys(sets)}
        self._trees = [trees[nodes] for nodes in sets]
        self._containing: list[list[_MaxTree]] = [[] for _ in sizes]
        for tree in trees.values():
            for node in tree.leaf_of:
                self._containing[node].append(tree)

    def fill(self, which: int, size: Size, count: int) -> int:
        """Place up to `count` VMs of a size on nodes of a set; return how many fit."""
        wanted, placed = self._wanted(size), 0
        while placed < count and (node := self._trees[which].first(wanted)) is not None:
            cpu, memory, pods, _, _ = self._free[node]
            fitting = [count - placed, pods]
            fitting += [has // need for need, has in ((size.cpu, cpu), (size.memory, memory)) if need]
            taken = min(fitting)
            self._free[node] = self._with_shares(cpu - taken * size.cpu, memory - taken * size.memory, pods - taken)
            for tree in self._containing[node]:
                tree.outdated.add(node)
            placed += taken
        return placed

    def fits(self, which: int, size: Size) -> bool:
        """Whether any node of a set has capacity for a size."""
        return self._trees[which].first(self._wanted(size)) is not None

    def left(self) -> list[Size]:
        """Return the free capacity of each node."""
        return [Size(*free[:3]) for free in self._free]

    def _wanted(self, size: Size) -> _Free:
        # A demand of 0 fits even where a resource is overcommitted.
        return self._with_shares(size.cpu or -_FAR, size.memory or -_FAR, 1)

    def _with_shares(self, cpu: int, memory: int, pods: int) -> _Free:
        shares = (cpu * _PARTS // self._most[0], memory * _PARTS // self._most[1])
        return cpu, memory, pods, min(shares), sum(shares)


class _MaxTree:
    """A binary tree over the free capacity of some nodes; an inner node is the maximum of its two children.

    `outdated`: nodes whose capacity has changed. Their leaves are corrected before the next search: many changes of one
    node cost one correction, and a set in which nobody looks costs none.
    """

    def __init__(self, free: Sequence[_Free], nodes: Sequence[int]) -> None:
        self._free = free
        self._nodes = nodes
        self._leaves = 1 << max(0, len(nodes) - 1).bit_length()
        self.leaf_of = {node: self._leaves + place for place, node in enumerate(nodes)}
        self.outdated: set[int] = set()
        blank = [_NOTHING_FREE] * self._leaves
        self._tree = [*blank, *(free[node] for node in nodes), *blank[len(nodes) :]]
        for at in range(self._leaves - 1, 0, -1):
            self._tree[at] = self._highest(at)

    def first(self, wanted: _Free) -> int | None:
        """Return the first node that has as much of everything; None if there is none."""
        while self.outdated:
            self._correct(self.outdated.pop())
        waiting = [1]
        while waiting:
            at = waiting.pop()
            if all(map(ge, self._tree[at], wanted)):
                if at >= self._leaves:
                    return self._nodes[at - self._leaves]
                waiting += (2 * at + 1, 2 * at)
        return None

    def _correct(self, node: int) -> None:
        at = self.leaf_of[node]
        self._tree[at] = self._free[node]
        while at > 1:
            at //= 2
            highest = self._highest(at)
            if highest == self._tree[at]:
                return
            self._tree[at] = highest

    def _highest(self, at: int) -> _Free:
        first, second = self._tree[2 * at], self._tree[2 * at + 1]
        return (
            max(first[0], second[0]),
            max(first[1], second[1]),
            max(first[2], second[2]),
            max(first[3], second[3]),
            max(first[4], second[4]),
        )
