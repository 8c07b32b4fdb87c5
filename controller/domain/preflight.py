"""Whether a node could hold a VM that is to move: asked before anything is claimed.

Guarantees: pure; what can never be is told apart from what cannot be now; a yes looks at no more nodes than it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.domain import capacity, launcher, migration
from controller.domain.launcher import LauncherPolicy
from controller.domain.migration import Reason, Refused
from controller.domain.objects import Node, VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import RatioError


def wrong_target(wanted: str, target: Node | None) -> Refused | None:
    """Return why the node that a migration names cannot be its target; None if nothing speaks against it."""
    if target is None:
        return Refused(Reason.TARGET_NOT_FOUND, f"There is no node {wanted}", for_good=True)
    if target.spec.unschedulable:
        return Refused(Reason.TARGET_UNSCHEDULABLE, f"Node {wanted} is cordoned", for_good=True)
    return None


def no_room(
    item: VirtualMachineMigration,
    vm: VirtualMachine,
    nodes: Iterable[Node],
    used: Mapping[str, capacity.Amount],
    policy: LauncherPolicy,
) -> Refused | None:
    """Return why no node could hold the VM, ever or now; None if one could. `used` is what pods hold on each node."""
    source, wanted = vm.status.node_name or "", item.spec.target_node
    try:
        needed = capacity.of_vm(launcher.requested(vm), policy)
    except RatioError as error:
        return Refused(Reason.VM_NOT_RUNNING, str(error), for_good=True)
    placement = migration.placement(item, source)
    eligible, able = 0, []
    for node in nodes:
        if not capacity.eligible(node, policy, placement):
            continue
        eligible += 1
        whole = capacity.allocatable(node)
        if not needed.fits(whole):
            continue
        name = node.metadata.name
        able.append(name)
        room = whole - used.get(name, capacity.NOTHING)
        if needed.fits(room):
            return None
    if not able:
        why = f"None of {eligible} eligible nodes could ever hold it" if eligible else "No node is eligible"
        return Refused(Reason.NO_SUITABLE_NODE, f"{why} ({wanted or f'any but {source}'})", for_good=True)
    only = f"{able[0]}, the only suitable node, has no"
    which = only if len(able) == 1 else f"None of {len(able)} suitable nodes has"
    return Refused(Reason.NO_ROOM, f"{which} room for it now", for_good=False)
