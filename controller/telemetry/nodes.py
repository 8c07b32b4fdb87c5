"""Metrics of nodes: `node_vm_count` and the ratios of use and requests.

Guarantees: a scrape costs O(nodes), whatever the number of VMs. Every node of the cluster has a sample until it is
deleted: 0 when the node is idle, 1 when its allocatable cannot be parsed. No node has one before all caches are synced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from controller.observe.loads import NodeLoads
from controller.telemetry.exposition import header, label

_NODES_A_PIECE: Final = 50
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


class NodeSeries:
    """The gauge families of all nodes."""

    def __init__(self, loads: NodeLoads) -> None:
        self._loads = loads

    def pieces(self) -> Iterator[str]:
        """Yield the families of an exposition."""
        families = [[header(*family)] for family in _FAMILIES]
        rows = self._loads.usage()
        while batch := tuple(islice(rows, _NODES_A_PIECE)):
            for name, values in batch:
                labels = f'{{node="{label(name)}"}}'
                for (family, _), lines, value in zip(_FAMILIES, families, values, strict=True):
                    lines.append(f"{family}{labels} {value}\n")
            yield ""
        for lines in families:
            yield "".join(lines)
