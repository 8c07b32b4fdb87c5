"""Whether a fleet fits on its own nodes and on those that exist: what its VMs request, and which nodes they may use.

Guarantees: pure; a VM's demand equals the requests of its pod, and it may use the nodes that its pod's node selector,
required node affinity and tolerations allow. What the scheduler alone can know is named and not guessed: spread, pod
affinity, preemption, another scheduler's mind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec

from controller.domain import capacity, scheduling
from controller.domain.capacity import Amount
from controller.domain.objects import VMSpec
from controller.domain.settings import DEFAULTS
from controller.domain.vm.placement import PlacementError, Requirements, left_to_scheduler, requirements
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Node, Pod
from controller.scenario.fleet import DesiredVM, Fleet, node_manifest
from controller.scenario.free import Size
from controller.scenario.packing import Demand, Packing, Reach, Space, pack

Policies = Mapping[str | None, LauncherPolicy]
"""The policy of each class of controllers; a class that is missing has the default one."""
DEFAULT_POLICIES: Final[Policies] = MappingProxyType({})
_NOTHING: Final[Mapping[str, Amount]] = MappingProxyType({})


def pack_fleet(
    fleet: Fleet,
    *,
    there: Iterable[Node] = (),
    used: Mapping[str, Amount] = _NOTHING,
    running: Collection[str] = (),
    policies: Policies = DEFAULT_POLICIES,
) -> Packing:
    """Place the VMs of a fleet on its own nodes and on the existing ones.

    `used` is the requests of the pods on each node, including those of the VMs that are `running` already. A VM is
    judged by the policy of its class.
    """
    nodes = list(there)
    known = {node.metadata.name for node in nodes}
    made = (node_manifest(desired, fleet.name) for desired in fleet.nodes if desired.name not in known)
    nodes += [msgspec.convert(manifest, Node) for manifest in made]
    wanted = [vm for vm in fleet.vms if vm.name not in running]
    room = _Room(nodes, used, policies)
    demands = [Demand(vm.group, vm.name, size_of(vm, policies), room.reach(vm)) for vm in wanted]
    packing = pack(demands, room.spaces, room.reaches)
    return replace(packing, unjudged=_unjudged(wanted))


def used_by_node(pods: Iterable[Pod]) -> dict[str, Amount]:
    """Return the requests of the pods on each node, including pods that are nominated to it."""
    used: dict[str, Amount] = {}
    for pod in pods:
        if (holding := capacity.holding(pod)) is not None:
            node, amount = holding
            used[node] = used.get(node, capacity.NOTHING) + amount
    return used


def policy_of(vm: DesiredVM, policies: Policies) -> LauncherPolicy:
    """Return the policy of a VM's controller: that of its class, or the default one."""
    return policies.get(vm.controller_class, DEFAULTS.policy)


def size_of(vm: DesiredVM, policies: Policies) -> Size:
    """Return the requests of a VM's pod."""
    reference = policy_of(vm, policies).reference
    return Size.of(Amount(Decimal(vm.cpu) * reference.cpu, Decimal(vm.memory) * reference.memory, 1))


class _Room:
    """Nodes with their free capacity, and which of them VMs may use: computed once for VMs with equal requirements."""

    def __init__(self, nodes: Iterable[Node], used: Mapping[str, Amount], policies: Policies) -> None:
        self._policies = policies
        self._nodes = {node.metadata.name: node for node in nodes}
        left = {
            name: capacity.allocatable(node) - used.get(name, capacity.NOTHING) for name, node in self._nodes.items()
        }
        self.spaces = [Space(name, Size.of(amount)) for name, amount in left.items() if not amount.unknown]
        self.reaches: list[Reach] = []
        self._of_template: dict[tuple[int, str | None], int] = {}
        self._of_requirements: dict[tuple[Requirements | str, str | None], int] = {}
        self._obstacles: dict[Requirements, Mapping[str, str | None]] = {}

    def reach(self, vm: DesiredVM) -> int:
        """Return the index of a VM's reach."""
        only = vm.node if vm.exact else None
        seen = (id(vm.template), only)
        if seen not in self._of_template:
            try:
                wanted: Requirements | str = requirements(vm.template.spec, policy_of(vm, self._policies))
            except PlacementError as error:
                wanted = str(error)
            if (wanted, only) not in self._of_requirements:
                self._of_requirements[wanted, only] = len(self.reaches)
                self.reaches.append(Reach(problem=wanted) if isinstance(wanted, str) else self._reach(wanted, only))
            self._of_template[seen] = self._of_requirements[wanted, only]
        return self._of_template[seen]

    def _reach(self, wanted: Requirements, only: str | None) -> Reach:
        if wanted not in self._obstacles:
            readable = {space.name for space in self.spaces}
            self._obstacles[wanted] = {
                name: _obstacle(node, wanted) or (None if name in readable else "with quantities that cannot be read")
                for name, node in self._nodes.items()
            }
        obstacles = self._obstacles[wanted]
        if only is not None and (why := obstacles.get(only, "that does not exist")) is not None:
            return Reach(problem=f"may begin on {only} alone, a node {why}")
        return Reach(
            tuple(
                index
                for index, space in enumerate(self.spaces)
                if obstacles[space.name] is None and only in (None, space.name)
            ),
            Counter(why for why in obstacles.values() if why is not None) if only is None else {},
        )


def _obstacle(node: Node, wanted: Requirements) -> str | None:
    """Return why a node accepts no VM with these requirements; None if it accepts them."""
    if node.spec.unschedulable and scheduling.repels(scheduling.UNSCHEDULABLE, wanted.tolerations):
        return "cordoned"
    labels = node.metadata.labels
    if lacking := next((f"{key}={value}" for key, value in wanted.selector if labels.get(key) != value), None):
        return f"without the label {lacking}"
    if not scheduling.selects(wanted.required, node):
        return "that their node affinity excludes"
    taint = next((taint for taint in node.spec.taints if scheduling.repels(taint, wanted.tolerations)), None)
    if taint is None:
        return None
    return f"tainted {taint.key}{f'={taint.value}' if taint.value else ''}:{taint.effect}"


def _unjudged(vms: Iterable[DesiredVM]) -> dict[str, tuple[str, ...]]:
    """Return what the scheduler alone knows about VMs, and the groups that it concerns."""
    groups = {id(vm.template): (vm.template.spec, vm.group) for vm in vms}
    found: dict[str, list[str]] = {}
    for spec, group in groups.values():
        for what in _scheduler_knows(spec):
            found.setdefault(what, []).append(group)
    return {what: tuple(concerned) for what, concerned in found.items()}


def _scheduler_knows(spec: VMSpec) -> Iterator[str]:
    left = left_to_scheduler(spec)
    if "topologySpreadConstraints" in left:
        yield "topology spread"
    if "podAffinity" in left or "podAntiAffinity" in left:
        yield "pod affinity"
    if spec.priority_class_name:
        yield "preemption"
    if "schedulerName" in left:
        yield f"scheduler {spec.scheduler_name}"
