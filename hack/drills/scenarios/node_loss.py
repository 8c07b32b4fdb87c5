"""A node with VMs is deleted: the VMs must run again on other nodes."""

from __future__ import annotations

from random import Random

from controller.kube.resources import NODES
from controller.observe.history import ClusterState
from hack.drills.errors import DrillError
from hack.drills.raw import node_copy, restore_node
from hack.drills.seeding import DesiredVM, roomy
from hack.drills.stage import Stage


class NodeLoss:
    """Deletes the node with the most VMs, waits until they run elsewhere, and restores the node."""

    name = "node-loss"
    summary = "Delete the node with the most VMs; they must run again on the other nodes."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Leave free capacity for the VMs of one node."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Delete a node; create its copy at the end, without VMs, since the cluster may not be the drill's own."""
        node = max(stage.observer.picture.loads(), key=lambda load: load[1])[0]
        lost = stage.on(node)
        if not lost:
            raise DrillError("no node has a VM, so no VM can lose its node")
        copy = await node_copy(stage.client, node)
        await self._lose(stage, node, len(lost), copy.metadata.uid)
        await restore_node(stage.client, copy)

    async def _lose(self, stage: Stage, node: str, vms: int, uid: str) -> None:
        def deleted(state: ClusterState) -> bool:
            return node not in state.nodes

        with stage.round(f"{node} with {vms} VMs is deleted"):
            await stage.client.delete(NODES, node, uid=uid)
            if await stage.until(deleted, f"{node} was deleted"):
                await stage.settle(f"every VM of {node} ran elsewhere")
