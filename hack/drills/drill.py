"""What a drill is: a name, a line that explains it, the fleet it wants, and what it does to it."""

from __future__ import annotations

from random import Random
from typing import Protocol

from hack.drills.seeding import Wish
from hack.drills.stage import Stage


class Drill(Protocol):
    """One drill."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        ...

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
        """Return the VMs it wants. Raises SizeError if it cannot be had in this size."""
        ...

    async def run(self, stage: Stage) -> None:
        """Do it; the VMs run when it begins, and the controller with its default limits."""
        ...
