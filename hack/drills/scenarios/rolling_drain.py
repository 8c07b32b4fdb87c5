"""Every node in turn is drained by migrations, as before a reboot, and uncordoned."""

from __future__ import annotations

from random import Random
from typing import Final

from controller.observe import judge
from hack.drills.seeding import DesiredVM, roomy
from hack.drills.stage import Stage

_ATTEMPTS: Final = 3


class RollingDrain:
    """Drains a node as `vmsim drain` does, and uncordons it."""

    name = "rolling-drain"
    summary = "Drain every node in turn: cordon it, migrate each VM on it, wait until it is empty, uncordon it."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Leave free capacity for the VMs of one node."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Drain all nodes."""
        nodes = sorted(stage.observer.picture.nodes, key=judge.natural)
        with stage.round(f"{len(nodes)} nodes are drained in turn"):
            for node in nodes:
                try:
                    emptied = await self._empty(stage, node)
                finally:
                    await stage.cordon(node, wanted=False)
                if not emptied:
                    stage.complaints.append(f"{node} was not drained: it still has {', '.join(stage.on(node))}")
            await stage.settle()

    async def _empty(self, stage: Stage, node: str) -> bool:
        """Drain a node, and again if it still has VMs when the migrations have ended."""
        for _ in range(_ATTEMPTS):
            stage.say(f"{node}: migrating {len(stage.on(node))} VMs")
            if not await stage.drain(node):
                return False
            if not stage.on(node):
                return True
        return False
