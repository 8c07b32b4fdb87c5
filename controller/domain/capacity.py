"""Which nodes could hold a VM, and which have room for it now: the scheduler's questions, asked before a move.

Guarantees: exact decimals; a node counts only if the launcher pod's selector, tolerations and the migration's own
wishes allow it. The scheduler has the last word: this only keeps a VM from being stopped for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from controller.domain.launcher import LauncherPolicy, Placement, Shares
from controller.domain.objects import Node, Pod, Taint
from controller.domain.quantity import QuantityError, parse_quantity

_ZERO: Final = Decimal(0)
_REPELLING: Final = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Amount:
    """CPU in cores, memory in bytes, and a number of pods."""

    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)
    pods: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)

    def fits(self, room: Amount) -> bool:
        """Whether it fits into that much room."""
        return self.cpu <= room.cpu and self.memory <= room.memory and self.pods <= room.pods

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cpu - other.cpu, self.memory - other.memory, self.pods - other.pods)


NOTHING: Final = Amount()


def of_vm(spec: Shares, policy: LauncherPolicy) -> Amount:
    """Return what a VM's pod requests."""
    return Amount(spec.cpu * policy.reference.cpu, spec.memory * policy.reference.memory, 1)


def of_pod(pod: Pod) -> Amount:
    """Return what any pod requests."""
    cpu = memory = _ZERO
    for container in pod.spec.containers:
        requests = container.resources.requests
        cpu += _quantity(requests.cpu)
        memory += _quantity(requests.memory)
    return Amount(cpu, memory, 1)


def allocatable(node: Node) -> Amount:
    """Return what a node can hold in all."""
    given = node.status.allocatable
    return Amount(_quantity(given.get("cpu")), _quantity(given.get("memory")), int(_quantity(given.get("pods"))))


def used_by_node(pods: Iterable[Pod]) -> dict[str, Amount]:
    """Return what the live pods of each node hold; strangers' pods count too."""
    used: dict[str, Amount] = {}
    for pod in pods:
        if pod.spec.node_name and not pod.done:
            used[pod.spec.node_name] = used.get(pod.spec.node_name, NOTHING) + of_pod(pod)
    return used


def _quantity(text: str | None) -> Decimal:
    try:
        return parse_quantity(text) if text is not None else _ZERO
    except QuantityError:
        return _ZERO


def eligible(node: Node, policy: LauncherPolicy, placement: Placement) -> bool:
    """Whether the scheduler may put the VM's next pod on this node at all."""
    labels = node.metadata.labels
    wanted: Mapping[str, str] = {**policy.node_selector, **placement.selector}
    name = node.metadata.name
    return (
        not node.spec.unschedulable
        and placement.node in (None, name)
        and placement.avoid != name
        and all(labels.get(key) == value for key, value in wanted.items())
        and all(_tolerated(taint, policy) for taint in node.spec.taints if taint.effect in _REPELLING)
    )


def _tolerated(taint: Taint, policy: LauncherPolicy) -> bool:
    return any(
        toleration.key == taint.key
        and toleration.value in (None, taint.value)
        and toleration.effect in (None, taint.effect)
        for toleration in policy.tolerations
    )
