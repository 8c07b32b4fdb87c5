"""A copy of a node, from which it can be created again after its deletion."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from controller.kube.client import Client
from controller.kube.meta import ObjectMeta, Value
from controller.kube.resources import Resource
from controller.kube.verbs import CREATE_DEADLINE


class NodeCopy(Value, frozen=True):
    """The parts of a fake node to restore: labels and annotations, taints, and its size."""

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)
    status: dict[str, Any] = msgspec.field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """Return the node to create."""
        old = self.metadata
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": old.name, "labels": old.labels, "annotations": old.annotations},
            "spec": {key: self.spec[key] for key in ("taints", "unschedulable") if key in self.spec},
            "status": {key: self.status[key] for key in ("capacity", "allocatable") if key in self.status},
        }


_NODES: Final = Resource("", "v1", "nodes", NodeCopy)


async def node_copy(client: Client, name: str) -> NodeCopy:
    """Read the parts of a node that are needed to create it again."""
    return await client.get(_NODES, name)


async def restore_node(client: Client, copy: NodeCopy) -> None:
    """Create a node again."""
    await client.create(_NODES, copy.manifest(), server_deadline=CREATE_DEADLINE)
