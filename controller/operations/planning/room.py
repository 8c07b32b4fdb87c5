"""The room on the nodes while VMs move: which nodes could take a VM, and whom the scheduler would preempt for it.

Guarantees: the rules are preflight's (`controller.domain.migration.preflight`, `controller.domain.capacity`). A demand
that was refused costs nothing more until a node that it may use gives something back.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from controller.domain import capacity
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
from controller.domain.migration.plan import Refused
from controller.kube.kinds import Node
from controller.observe.loads import Ledger
from controller.operations.planning.values import Held


class Choice(msgspec.Struct, frozen=True):
    """The nodes with room for a VM, the one first that is assumed, and the pods that would be preempted there."""

    candidates: tuple[str, ...]
    victims: tuple[Held, ...] = ()

    @property
    def node(self) -> str:
        """The node that is assumed: the one with the largest free share, as by the scheduler's default."""
        return self.candidates[0]


class Room:
    """The nodes, and what pods hold on them."""

    def __init__(self, nodes: Iterable[Node], held: Iterable[Held]) -> None:
        self._nodes = {node.metadata.name: node for node in nodes}
        self._whole = {name: capacity.allocatable(node) for name, node in self._nodes.items()}
        self._free = dict(self._whole)
        self._shares = {name: preflight.free_share(free, self._whole[name]) for name, free in self._free.items()}
        self._ledger = Ledger()
        self._held: dict[str, dict[str, Held]] = {name: {} for name in self._nodes}
        # The nodes that a demand may use, ever, if its VM does not run there.
        self._able: dict[Demand, dict[str, None]] = {}
        # The nodes on which something was given back, in order.
        self._freed: list[str] = []
        for each in held:
            self.put(each)

    @property
    def times_freed(self) -> int:
        """How often something was given back: a moment for `better`."""
        return len(self._freed)

    def put(self, held: Held) -> None:
        """Let a pod hold something on a node; a node that is not known is left out."""
        if held.node in self._nodes:
            self._held[held.node][held.pod] = held
            self._ledger.put(held.pod, held.node, held.amount, held.priority)
            self._count(held.node)

    def drop(self, pod: str) -> None:
        """Give back what a pod holds, if it does."""
        node = self._ledger.drop(pod)
        if node is not None:
            del self._held[node][pod]
            self._count(node)
            self._freed.append(node)

    def _count(self, node: str) -> None:
        self._free[node] = self._whole[node] - self._ledger.on(node)
        self._shares[node] = preflight.free_share(self._free[node], self._whole[node])

    def better(self, wanted: Demand, since: int) -> bool:
        """Whether a node that a demand may use has got room since a moment."""
        able = self._able_nodes(wanted)
        return any(node in able for node in self._freed[since:])

    def find(self, wanted: Demand) -> Choice | Refused:
        """Return where a VM could go now, or why nowhere."""
        able = self._able_nodes(wanted)
        fitting = [name for name in able if name != wanted.source and wanted.amount.fits(self._free[name])]
        if fitting:
            return Choice(tuple(sorted(fitting, key=self._shares.__getitem__, reverse=True)))
        found = preflight.find_node(wanted, self._nodes.values(), self._ledger.on, self._ledger.below)
        if isinstance(found, Refused):
            return found
        return Choice((found.node,), self._victims(found.node, wanted))

    def _able_nodes(self, wanted: Demand) -> dict[str, None]:
        anywhere = msgspec.structs.replace(wanted, placement=msgspec.structs.replace(wanted.placement, avoid=None))
        found = self._able.get(anywhere)
        if found is None:
            found = {
                name: None
                for name, node in self._nodes.items()
                if capacity.obstacle(node, anywhere.requirements, anywhere.placement) is None
                and wanted.amount.fits(self._whole[name])
            }
            self._able[anywhere] = found
        return found

    def _victims(self, node: str, wanted: Demand) -> tuple[Held, ...]:
        """Return whom the scheduler would preempt, the lowest priority first: of those below, whom it cannot spare.

        It spares the most important first.
        """
        below = wanted.priority if wanted.priority is not None else 0
        lower = [held for held in self._held[node].values() if held.priority < below]
        free = sum((held.amount for held in lower), start=self._free[node])
        victims = []
        for held in sorted(lower, key=lambda each: (-each.priority, each.pod)):
            left = free - held.amount
            if wanted.amount.fits(left):
                free = left
            else:
                victims.append(held)
        return tuple(reversed(victims))
