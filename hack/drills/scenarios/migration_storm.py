"""All VMs migrate at the same time, first within the controller's limits, then without limits."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from controller.domain.migration.limits import Limits
from controller.observe import judge
from controller.observe.history import Seen
from hack.drills.seeding import DesiredVM, roomy
from hack.drills.stage import Stage

NO_LIMITS: Final = ("--parallel-migrations-per-cluster", "0", "--parallel-outbound-migrations-per-node", "0")


class MigrationStorm:
    """Creates a migration for every VM at once; then again, with a new, equal fleet and without limits."""

    name = "migration-storm"
    summary = "Migrate all VMs at once: first within the controller's limits (which must hold), then without limits."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Leave free capacity for migrations."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Run the storm with limits, then without."""
        began = stage.observer.now
        if not await self._storm(stage, "limits on"):
            return
        stage.complaints += self.excesses(stage.observer.history, began)
        # A new fleet, since a new process does not move the VMs that it finds for a while.
        await stage.disband()
        await stage.controller.stop()
        await stage.controller.start(*NO_LIMITS)
        await stage.seed(stage.desired)
        await self._storm(stage, "limits off")

    @staticmethod
    def excesses(history: Iterable[Seen], since: float) -> list[str]:
        """Return complaints about more VMs that were down at once than the limits allow to migrate at once."""
        limits = Limits()
        down = [outage for outage in judge.outages(history) if outage.began >= since]
        found = []
        if (most := judge.most_at_once(down)) > limits.cluster:
            found.append(f"{most} VMs were down at once, with a limit of {limits.cluster} migrations in the cluster")
        if (most := judge.most_at_once_of_a_node(down)) > limits.outbound:
            found.append(
                f"{most} VMs of one node were down at once, with a limit of {limits.outbound} outbound migrations"
            )
        return found

    async def _storm(self, stage: Stage, label: str) -> bool:
        vms = sorted(stage.vms.values())
        stage.rng.shuffle(vms)
        with stage.round(f"{len(vms)} migrations at once, {label}"):
            await stage.migrate(vms, reason=f"drill: storm, {label}")
            return await stage.settle(f"every migration had ended ({label})")
