"""Nodes are packed so that there is nowhere to go: migrations must fail, and leave the VMs as they are."""

from __future__ import annotations

from random import Random
from typing import Final

from controller.observe import judge
from hack.drills.seeding import Wish, packed
from hack.drills.stage import Stage

_PATIENCE: Final = 3
"""Seconds a migration waits for room."""


class FullCluster:
    """Asks for migrations that cannot be, some to a named node, and checks that no pod was touched."""

    name = "full-cluster"
    summary = "Pack the nodes, then migrate all VMs: every migration must wait and fail, and no pod be touched."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
        """Fill every node to the brim."""
        del rng
        return packed(vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Ask for the impossible."""
        picture = stage.observer.picture
        nodes = sorted(picture.nodes)
        began = stage.observer.now
        with stage.round(f"{len(stage.vms)} migrations without room"):
            asked = []
            for number, (uid, name) in enumerate(stage.vms.items()):
                serving = picture.serving(uid)
                others = [node for node in nodes if serving is None or node != serving.node]
                named = {"targetNode": stage.rng.choice(others)} if number % 2 and others else {}
                asked += await stage.migrate(
                    [name], reason="drill: full cluster", unschedulableTimeoutSeconds=_PATIENCE, **named
                )
            await stage.settle("every migration had failed")
        moved = [uid for uid in asked if picture.migrations[uid].phase == "Succeeded"]
        stage.complaints += [f"{picture.migrations[uid].name} succeeded, with no room to go to" for uid in moved]
        stage.complaints += judge.touched(stage.observer.history, since=began)
