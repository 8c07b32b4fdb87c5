"""Which node could hold a VM that is to move: asked before anything is claimed.

Guarantees: pure; what can never be is told apart from what cannot be now; who demands the same gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from controller.domain import capacity, launcher
from controller.domain.launcher import LauncherPolicy, Placement
from controller.domain.migration import Reason, Refused
from controller.domain.objects import Claim, Node, VirtualMachine


class Demand(msgspec.Struct, frozen=True):
    """What a migration asks of nodes: room for so much, away from `source`, on `node` if given, with such labels."""

    amount: capacity.Amount
    source: str
    node: str | None
    labels: tuple[tuple[str, str], ...]

    @property
    def placement(self) -> Placement:
        """What the target pod will ask for."""
        claim = Claim(source_node=self.source, target_node=self.node, added_node_selector=dict(self.labels))
        return launcher.placement_of(claim)


def demand(claim: Claim, vm: VirtualMachine, policy: LauncherPolicy) -> Demand:
    """Return what the target pod of a claim will need. Raises RatioError."""
    return Demand(
        capacity.of_vm(launcher.requested(vm), policy),
        claim.source_node,
        claim.target_node,
        tuple(sorted(claim.added_node_selector.items())),
    )


def wrong_target(wanted: str, target: Node | None) -> Refused | None:
    """Return why the node that a migration names cannot be its target; None if nothing speaks against it."""
    if target is None:
        return Refused(Reason.TARGET_NOT_FOUND, f"There is no node {wanted}", for_good=True)
    if target.spec.unschedulable:
        return Refused(Reason.TARGET_UNSCHEDULABLE, f"Node {wanted} is cordoned", for_good=True)
    return None


def find_node(
    wanted: Demand, nodes: Iterable[Node], used: Mapping[str, capacity.Amount], policy: LauncherPolicy
) -> str | Refused:
    """Return a node that has room, or why none could hold the VM, ever or now. `used` is what is held on each node."""
    placement = wanted.placement
    eligible, able = 0, []
    for node in nodes:
        if not capacity.eligible(node, policy, placement):
            continue
        eligible += 1
        whole = capacity.allocatable(node)
        if not wanted.amount.fits(whole):
            continue
        name = node.metadata.name
        able.append(name)
        room = whole - used.get(name, capacity.NOTHING)
        if wanted.amount.fits(room):
            return name
    if not able:
        why = f"None of {eligible} eligible nodes could ever hold it" if eligible else "No node is eligible"
        where = wanted.node or f"any but {wanted.source}"
        return Refused(Reason.NO_SUITABLE_NODE, f"{why} ({where})", for_good=True)
    only = f"{able[0]}, the only suitable node, has no"
    which = only if len(able) == 1 else f"None of {len(able)} suitable nodes has"
    return Refused(Reason.NO_ROOM, f"{which} room for it now", for_good=False)
