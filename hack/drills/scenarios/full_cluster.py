"""Nodes are packed so that no VM fits on another one: migrations must fail and leave the VMs unchanged."""

from __future__ import annotations

from random import Random
from typing import Final

from controller.observe import judge
from hack.drills.seeding import DesiredVM, packed
from hack.drills.stage import Stage

_TIMEOUT: Final = 3
"""Seconds that a migration waits for capacity."""


class FullCluster:
    """Requests impossible migrations, some to a named node, and checks that no pod was changed."""

    name = "full-cluster"
    summary = "Pack the nodes, then migrate all VMs: every migration must wait and fail, and no pod may change."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Fill every node."""
        del rng
        return packed(vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Request a migration of every VM."""
        picture = stage.observer.picture
        nodes = sorted(picture.nodes)
        began = stage.observer.now
        with stage.round(f"{len(stage.vms)} migrations without capacity"):
            asked = []
            for number, (uid, name) in enumerate(stage.vms.items()):
                serving = picture.serving(uid)
                others = [node for node in nodes if serving is None or node != serving.node]
                named = {"targetNode": stage.rng.choice(others)} if number % 2 and others else {}
                asked += await stage.migrate(
                    [name], reason="drill: full cluster", unschedulableTimeoutSeconds=_TIMEOUT, **named
                )
            await stage.settle("every migration had failed")
        moved = [uid for uid in asked if picture.migrations[uid].phase == "Succeeded"]
        stage.complaints += [f"{picture.migrations[uid].name} succeeded, but no node had capacity" for uid in moved]
        stage.complaints += judge.touched(stage.observer.history, since=began)
