"""How loaded each node is: `node_vm_count` and the ratios.

Guarantees: a change of a pod costs O(1) and a scrape O(nodes), whatever the number of VMs; every node of the cluster
has a sample, 0 when it is idle and 1 when it has no capacity that can be read, and loses it when it is deleted; none
has one while a cache is still empty, or a loaded node would be taken for an idle one; sums are exact, so they do not
drift, and a pod that cannot be taken in changes none of them; a capacity that cannot be read is logged when the node
first says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import structlog

from controller.domain import capacity, usage
from controller.domain.ratio import ReferenceNode
from controller.domain.usage import Load, Usage
from controller.engine.listeners import Subscription
from controller.engine.store import Store
from controller.kube.kinds import Node, Pod
from controller.telemetry.exposition import header, label

_log = structlog.get_logger(__name__)

_NODES_A_PIECE: Final = 50
_IDLE: Final = Load()
_FAMILIES: Final = (
    ("node_vm_count", "Running VMs on the node."),
    ("node_cpu_usage_ratio", "CPU that the node's running VMs use now, as a share of its allocatable."),
    ("node_memory_usage_ratio", "Memory that the node's running VMs use now, as a share of its allocatable."),
    ("node_cpu_requested_ratio", "CPU requested by the launcher pods on the node, as a share of its allocatable."),
    (
        "node_memory_requested_ratio",
        "Memory requested by the launcher pods on the node, as a share of its allocatable.",
    ),
)


class NodeMetrics:
    """The loads of all nodes, by the pods of some stores."""

    def __init__(self, nodes: Store[Node], pods: Iterable[Store[Pod]], reference: ReferenceNode) -> None:
        self._nodes = nodes
        self._pods = tuple(pods)
        self._reference = reference
        self._loads: dict[str, Load] = {}
        nodes.listen(self._node_changed, name="NodeCapacities")
        listener = Subscription[Pod](self._changed, name="NodeMetrics", reset=self._loads.clear)
        for store in self._pods:
            store.subscribe(listener)

    def usage(self) -> Iterator[tuple[str, Usage]]:
        """Yield how loaded each node is now; nothing until that is known."""
        if not all(store.filled for store in self._pods):
            return
        for node in list(self._nodes):
            name = node.metadata.name
            yield name, usage.usage(node, self._loads.get(name, _IDLE), self._reference)

    def pieces(self) -> Iterator[str]:
        """Yield the families of an exposition."""
        families = [[header(*family)] for family in _FAMILIES]
        rows = self.usage()
        while batch := tuple(islice(rows, _NODES_A_PIECE)):
            for name, values in batch:
                labels = f'{{node="{label(name)}"}}'
                for (family, _), lines, value in zip(_FAMILIES, families, values, strict=True):
                    lines.append(f"{family}{labels} {value}\n")
            yield ""
        for lines in families:
            yield "".join(lines)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None or (old is not None and old.status == new.status):
            return
        known = frozenset(capacity.unreadable(old)) if old is not None else frozenset()
        for why in capacity.unreadable(new):
            if why not in known:
                name = new.metadata.name
                _log.warning("a node's allocatable cannot be read: its ratio is 1", node=name, error=why)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and usage.same(old, new):
            return
        before, after = usage.of(old), usage.of(new)  # what may fail comes before the first change
        if before == after:
            return
        if before is not None:
            load = self._loads[before.node]
            load.remove(before)
            if not load.pods:
                del self._loads[before.node]
        if after is not None:
            self._loads.setdefault(after.node, Load()).add(after)
