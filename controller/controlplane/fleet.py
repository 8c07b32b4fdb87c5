"""Brings the fake nodes of a running plane to the wanted number and size, and waits until pods can land there.

Nodes that somebody else made, of whatever name and capacity, fake or not, are neither touched nor waited for: the API
server knows of each who made it.
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
        """Have exactly `kwok-node-1 … count`, all of them Ready, within the given time."""
        nodes, taken = self._observe()
        plan = plan_nodes({name: size for name, (size, _) in nodes.items()}, count, capacity)
        for name in plan.create:
            if name in taken:
                self.report.warn(f"node {name} is there and {taken[name]}: it is left alone")
            else:
                self.server.post(_NODES, node_manifest(name, capacity))
        for name in plan.resize:
            self.server.patch(f"{_NODES}/{name}/status", {"status": status_of(capacity)})
        for name in plan.delete:
            self.server.delete(f"{_NODES}/{name}")
        self._wait(set(plan.delete), seconds)

    def _wait(self, leaving: set[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            nodes, _ = self._observe()
            unready = sorted(name for name, (_, ready) in nodes.items() if not ready or name in leaving)
            if not unready:
                return
            if time.monotonic() > deadline:
                raise NotReadyError(f"nodes {', '.join(unready[:5])}", seconds, self.logs)
            time.sleep(_POLL)

    def _observe(self) -> tuple[dict[str, tuple[NodeCapacity, bool]], dict[str, str]]:
        """Return our nodes, and those of other people under names of ours, with what they are."""
        named = [node for node in self.server.get(_NODES)["items"] if has_our_name(node["metadata"]["name"])]
        ours = {node["metadata"]["name"]: (capacity_of(node), is_schedulable(node)) for node in named if is_ours(node)}
        taken = {
            node["metadata"]["name"]: "was made by somebody else" if is_fake(node) else "is no fake one"
            for node in named
            if not is_ours(node)
        }
        return ours, taken
