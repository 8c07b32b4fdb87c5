"""Every VM is to migrate at the same time, first within the controller's limits, then without limits."""

from __future__ import annotations

from random import Random
from typing import Final

from hack.drills.seeding import Wish, roomy
from hack.drills.stage import Stage

NO_LIMITS: Final = ("--parallel-migrations-per-cluster", "0", "--parallel-outbound-migrations-per-node", "0")


class MigrationStorm:
    """Creates a migration for every VM at once; then again, with another fleet of the same make and without limits."""

    name = "migration-storm"
    summary = "Migrate all VMs at once: first within the controller's limits, then with the limits off."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
        """Leave room to move."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Storm with limits, then without."""
        if not await self._storm(stage, "limits on"):
            return
        # A new fleet, since the new process would let the VMs that it finds where they are for a while.
        await stage.disband()
        await stage.controller.stop()
        await stage.controller.start(*NO_LIMITS)
        await stage.seed(stage.wishes)
        await self._storm(stage, "limits off")

    async def _storm(self, stage: Stage, label: str) -> bool:
        vms = sorted(stage.vms.values())
        stage.rng.shuffle(vms)
        with stage.round(f"{len(vms)} migrations at once, {label}"):
            await stage.migrate(vms, reason=f"drill: storm, {label}")
            return await stage.settle(f"every migration had ended ({label})")
