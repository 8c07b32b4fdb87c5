"""A node with VMs on it is deleted: they must come back elsewhere."""

from __future__ import annotations

from random import Random

from controller.kube.resources import NODES
from controller.observe.history import ClusterState
from hack.drills.errors import DrillError
from hack.drills.raw import node_copy, restore_node
from hack.drills.seeding import Wish, roomy
from hack.drills.stage import Stage


class NodeLoss:
    """Deletes the fullest node, waits until its VMs run elsewhere, and puts the node back."""

    name = "node-loss"
    summary = "Delete the node with the most VMs on it; they must come back on the others."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
        """Leave room for the VMs of one node."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Lose a node; the copy of it returns at the end, empty, since the cluster may be somebody's."""
        node = max(stage.observer.picture.loads(), key=lambda load: load[1])[0]
        lost = stage.on(node)
        if not lost:
            raise DrillError("no node holds a VM: there is nothing to lose")
        copy = await node_copy(stage.client, node)
        await self._lose(stage, node, len(lost), copy.metadata.uid)
        await restore_node(stage.client, copy)

    async def _lose(self, stage: Stage, node: str, vms: int, uid: str) -> None:
        def gone(picture: ClusterState) -> bool:
            return node not in picture.nodes

        with stage.round(f"{node} with {vms} VMs is deleted"):
            await stage.client.delete(NODES, node, uid=uid)
            if await stage.until(gone, f"{node} was gone"):
                await stage.settle(f"every VM of {node} ran elsewhere")
