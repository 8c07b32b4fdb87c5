"""The slots of a plan, and the moves that wait for one, in order of rank.

Guarantees: no class of controllers has more moves at once than its limits, in the cluster and out of a node.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controller.domain.copying.record import Copying
from controller.domain.migration.demand import Demand
from controller.domain.migration.limits import Limits
from controller.domain.migration.plan import Refused
from controller.operations.planning.values import Leaver


class Slots:
    """The slots in use; `most`: how many were in use at the same time, at most."""

    def __init__(self, limits: Mapping[str | None, Limits]) -> None:
        self._limits = limits
        self._moving: Counter[str | None] = Counter()
        self._leaving: Counter[tuple[str | None, str]] = Counter()
        self.most = 0

    def free(self, of_class: str | None, node: str) -> bool:
        """Whether one more VM may move away from a node."""
        limits = self._limits[of_class]
        in_cluster = not limits.cluster or self._moving[of_class] < limits.cluster
        return in_cluster and (not limits.outbound or self._leaving[of_class, node] < limits.outbound)

    def take(self, of_class: str | None, node: str) -> None:
        """Use a slot; a move that is under way already has one, whatever the limits."""
        self._moving[of_class] += 1
        self._leaving[of_class, node] += 1
        self.most = max(self.most, self._moving.total())

    def give_back(self, of_class: str | None, node: str) -> None:
        """Free a slot."""
        self._moving[of_class] -= 1
        self._leaving[of_class, node] -= 1


@dataclass(eq=False, slots=True)
class Waiting:
    """A move without a slot. `copying`: what a live one copies.

    `refused`: why there was no room for it, and `seen` at which moment of the room.
    """

    rank: tuple[float, str]
    leaver: Leaver
    node: str
    of_class: str | None
    wanted: Demand
    copying: Copying | None = None
    refused: Refused | None = None
    seen: int = 0

    @property
    def vm(self) -> str:
        """The VM, as `namespace/name`."""
        return self.leaver.vm.metadata.key


@dataclass(slots=True)
class Line:
    """The moves that wait: by the time at which they were asked for, then by the VM's name."""

    _ranks: list[tuple[float, str]] = field(default_factory=list)
    _waiting: dict[tuple[float, str], Waiting] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Waiting]:
        return (self._waiting[rank] for rank in self._ranks)

    def __contains__(self, waiting: Waiting) -> bool:
        return waiting.rank in self._waiting

    def enter(self, waiting: Waiting) -> None:
        """Let a move wait."""
        insort(self._ranks, waiting.rank)
        self._waiting[waiting.rank] = waiting

    def leave(self, waiting: Waiting) -> None:
        """Let a move wait no longer."""
        del self._ranks[bisect_left(self._ranks, waiting.rank)]
        del self._waiting[waiting.rank]
