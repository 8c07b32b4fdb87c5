"""The protocol of a drill: a name, a summary, its fleet, and its actions."""

from __future__ import annotations

from random import Random
from typing import Protocol

from hack.drills.seeding import DesiredVM
from hack.drills.stage import Stage


class Drill(Protocol):
    """One drill."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def summary(self) -> str:
        """Its actions, in one line."""
        ...

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Return the VMs that it needs. Raises SizeError if it cannot run in this size."""
        ...

    async def run(self, stage: Stage) -> None:
        """Carry it out. When it begins, all VMs run, and the controller runs with its default limits."""
        ...
