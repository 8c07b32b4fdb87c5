"""What is on each node: by the pods that the caches show, and by whoever holds something.

Guarantees: a change costs O(1), whatever the number of pods; sums are exact, so what was added and taken away leaves
nothing; while one of those on a node holds an unknown amount, the sum is unknown, and no longer. Nothing is told of any
node while a cache is still empty, or a loaded node would be taken for an idle one. A pod that cannot be taken in
changes no sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog

from controller.domain import capacity, usage
from controller.domain.capacity import Amount
from controller.domain.ratio import ReferenceNode
from controller.domain.usage import IDLE, Load, Usage
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.kinds import Node, Pod

_log = structlog.get_logger(__name__)


class Sums:
    """The load of each node."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}

    def add(self, node: str, load: Load) -> None:
        """Put something on a node."""
        self._loads[node] = self.on(node) + load

    def remove(self, node: str, load: Load) -> None:
        """Take away what was put on a node."""
        left = self._loads[node] - load
        if left == IDLE:
            del self._loads[node]
        else:
            self._loads[node] = left

    def on(self, node: str) -> Load:
        """Return what is on a node in all."""
        return self._loads.get(node, IDLE)

    def clear(self) -> None:
        """Take everything away."""
        self._loads.clear()


class Ledger:
    """Amounts by whoever holds them, and their sum on each node."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Load]] = {}
        self._sums = Sums()

    def __contains__(self, who: str) -> bool:
        return who in self._held

    def put(self, who: str, node: str, amount: Amount) -> None:
        """Let somebody hold so much on a node, and nothing else."""
        self.drop(who)
        self._held[who] = node, Load.holding(amount)
        self._sums.add(*self._held[who])

    def drop(self, who: str) -> str | None:
        """Let somebody hold nothing; return the node on which something was held."""
        held = self._held.pop(who, None)
        if held is None:
            return None
        self._sums.remove(*held)
        return held[0]

    def on(self, node: str) -> Amount:
        """Return what is held on a node in all."""
        return self._sums.on(node).held


class NodeLoads:
    """The loads of all nodes, by the pods of some stores. A capacity that cannot be read is logged once a value."""

    def __init__(self, nodes: Store[Node], pods: Iterable[Store[Pod]], reference: ReferenceNode) -> None:
        self._nodes = nodes
        self._pods = tuple(pods)
        self._reference = reference
        self._sums = Sums()
        nodes.listen(_node_changed, name="NodeCapacities")
        listener = Subscription[Pod](self._changed, name="NodeMetrics", reset=self._sums.clear)
        for store in self._pods:
            store.subscribe(listener)

    def usage(self) -> Iterator[tuple[str, Usage]]:
        """Yield how loaded each node is now; nothing until that is known."""
        if not all(store.filled for store in self._pods):
            return
        for node in list(self._nodes):
            name = node.metadata.name
            yield name, usage.usage(node, self._sums.on(name), self._reference)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and usage.same(old, new):
            return
        before, after = usage.of(old), usage.of(new)  # what may fail comes before the first change
        if before == after:
            return
        if before is not None:
            self._sums.remove(*before)
        if after is not None:
            self._sums.add(*after)


def _node_changed(old: Node | None, new: Node | None) -> None:
    if new is None or (old is not None and old.status == new.status):
        return
    known = frozenset(capacity.unreadable(old)) if old is not None else frozenset()
    for why in capacity.unreadable(new):
        if why not in known:
            _log.warning("a node's allocatable cannot be read: its ratio is 1", node=new.metadata.name, error=why)
