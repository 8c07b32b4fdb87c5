"""What a migration demands of a node: capacity, the target's placement, and the pods that it may preempt."""

from __future__ import annotations

import msgspec

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import launcher, placement
from controller.domain.vm.placement import NO_REQUIREMENTS, Placement, Requirements
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Pod


class Demand(msgspec.Struct, frozen=True):
    """The target pod's requests, placement and requirements of a node. Equal demands get equal answers; hashable.

    `priority`: the scheduler preempts pods of lower priority for it; None: it preempts none. `edited_class`: None
    because the VM's priorityClassName was edited since its pod was made, so that the next pod's priority is unknown.
    """

    amount: Amount
    placement: Placement
    requirements: Requirements = NO_REQUIREMENTS
    priority: int | None = None
    edited_class: bool = False

    @property
    def source(self) -> str:
        """The node that the VM leaves."""
        return self.placement.avoid or ""


def demand(claim: Claim, vm: VirtualMachine, policy: LauncherPolicy, source: Pod | None) -> Demand:
    """Return what the target pod of a claim will need. Raises RatioError or PlacementError.

    Its priority is that of `source`, the VM's running pod: the API server has resolved it. Under Live the target has
    the requests and the class of that pod, also if the spec was edited since.
    """
    changed = source is not None and placement.priority_class_of(source) != vm.spec.priority_class_name
    edited = changed and not claim.is_live
    preempts = source is not None and not edited and source.spec.preemption_policy != "Never"
    return Demand(
        capacity.of_vm(launcher.requested_by(source if claim.is_live else None, vm), policy),
        placement.placement_of(claim),
        placement.requirements(vm.spec, policy),
        source.spec.priority if source is not None and preempts else None,
        edited,
    )
