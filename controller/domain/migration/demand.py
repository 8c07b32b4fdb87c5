"""What a migration asks of nodes: room, and a place where its target may be."""

from __future__ import annotations

import msgspec

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import launcher
from controller.domain.vm.launcher import LauncherPolicy, Placement


class Demand(msgspec.Struct, frozen=True):
    """Room for so much, where the target pod will ask to be. Equal demands get equal answers; it can be a key."""

    amount: Amount
    placement: Placement

    @property
    def source(self) -> str:
        """The node that the VM leaves."""
        return self.placement.avoid or ""


def demand(claim: Claim, vm: VirtualMachine, policy: LauncherPolicy) -> Demand:
    """Return what the target pod of a claim will need. Raises RatioError."""
    return Demand(capacity.of_vm(launcher.requested(vm), policy), launcher.placement_of(claim))
