"""What a migration demands of a node: capacity, and the target's placement."""

from __future__ import annotations

import msgspec

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import launcher, placement
from controller.domain.vm.placement import NO_REQUIREMENTS, Placement, Requirements
from controller.domain.vm.policy import LauncherPolicy


class Demand(msgspec.Struct, frozen=True):
    """The target pod's requests, placement and requirements of a node. Equal demands get equal answers; hashable."""

    amount: Amount
    placement: Placement
    requirements: Requirements = NO_REQUIREMENTS

    @property
    def source(self) -> str:
        """The node that the VM leaves."""
        return self.placement.avoid or ""


def demand(claim: Claim, vm: VirtualMachine, policy: LauncherPolicy) -> Demand:
    """Return what the target pod of a claim will need. Raises RatioError or PlacementError."""
    return Demand(
        capacity.of_vm(launcher.requested(vm), policy),
        placement.placement_of(claim),
        placement.requirements(vm.spec, policy),
    )
