"""What a migration demands of a node: capacity, and the target's placement."""

from __future__ import annotations

import msgspec

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import launcher
from controller.domain.vm.launcher import LauncherPolicy, Placement


class Demand(msgspec.Struct, frozen=True):
    """The target pod's requests and placement. Equal demands get equal answers; hashable."""

    amount: Amount
    placement: Placement

    @property
    def source(self) -> str:
        """The node that the VM leaves."""
        return self.placement.avoid or ""


def demand(claim: Claim, vm: VirtualMachine, policy: LauncherPolicy) -> Demand:
    """Return what the target pod of a claim will need. Raises RatioError."""
    return Demand(capacity.of_vm(launcher.requested(vm), policy), launcher.placement_of(claim))
