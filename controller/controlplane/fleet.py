"""Brings the fake nodes of a running plane to the wanted number and size, and waits until pods can land there.

Guarantees: a node that another client created is neither changed nor waited for, whatever its name and capacity, fake
or not: the API server records the creator of each node.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.api import ApiServer
from controller.controlplane.errors import NotReadyError
from controller.controlplane.nodes import (
    NodeCapacity,
    capacity_of,
    has_our_name,
    is_fake,
    is_ours,
    is_schedulable,
    node_manifest,
    plan_nodes,
    status_of,
)
from controller.controlplane.report import Reporter

_POLL = 0.1
_NODES = "/api/v1/nodes"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fake nodes of one plane."""

    server: ApiServer
    report: Reporter
    logs: Path

    def converge(self, count: int, capacity: NodeCapacity, *, seconds: float) -> None:
        """Make `kwok-node-1 … count` our only nodes, all of them Ready, within `seconds`. Raises NotReadyError."""
        nodes, taken = self._observe()
        plan = plan_nodes({name: size for name, (size, _) in nodes.items()}, count, capacity)
        for name in plan.create:
            if name in taken:
                self.report.warn(f"node {name} exists and {taken[name]}: it is left unchanged")
            else:
                self.server.post(_NODES, node_manifest(name, capacity))
        for name in plan.resize:
            self.server.patch(f"{_NODES}/{name}/status", {"status": status_of(capacity)})
        for name in plan.delete:
            self.server.delete(f"{_NODES}/{name}")
        self._wait(set(plan.delete), seconds)

    def _wait(self, deleted: set[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            nodes, _ = self._observe()
            unready = sorted(name for name, (_, ready) in nodes.items() if not ready or name in deleted)
            if not unready:
                return
            if time.monotonic() > deadline:
                raise NotReadyError(f"nodes {', '.join(unready[:5])}", seconds, self.logs)
            time.sleep(_POLL)

    def _observe(self) -> tuple[dict[str, tuple[NodeCapacity, bool]], dict[str, str]]:
        """Return our nodes, and why the other nodes that have our names are not ours."""
        named = [node for node in self.server.get(_NODES)["items"] if has_our_name(node["metadata"]["name"])]
        ours = {node["metadata"]["name"]: (capacity_of(node), is_schedulable(node)) for node in named if is_ours(node)}
        taken = {
            node["metadata"]["name"]: "was created by another client" if is_fake(node) else "is not a fake node"
            for node in named
            if not is_ours(node)
        }
        return ours, taken
