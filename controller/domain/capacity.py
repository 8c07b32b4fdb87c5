"""Which nodes a VM fits on, in principle and now: the scheduler's checks, made before a migration.

Guarantees: exact decimals, in the units the scheduler compares (millicores, bytes, pods); a node counts only if the
launcher pod's selector, tolerations and the migration's own wishes allow it; what cannot be read is unknown, neither
empty nor full: such a node may fit. The scheduler has the last word: this only keeps a VM from being stopped for
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from controller.domain import requests
from controller.domain.vm.launcher import LauncherPolicy, Placement, Shares
from controller.kube.kinds import Node, Pod, Taint
from controller.kube.quantity import QuantityError, parse_quantity, round_up

_ZERO: Final = Decimal(0)
_MILLICORE: Final = Decimal("0.001")
_BYTE: Final = Decimal(1)
_LARGEST: Final = Decimal(2**63 - 1)
"""What the scheduler can count to. A cap keeps sums exact, whatever one pod asks for."""
_UNREADY: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""What the node lifecycle controller taints a node with while its Ready condition is False or Unknown."""
_REPELLING: Final = ("NoSchedule", "NoExecute")


class Amount(msgspec.Struct, frozen=True):
    """CPU in cores, memory in bytes, and a number of pods.

    `unknown` says that a part of it could not be read; what is computed from an unknown amount is unknown.
    """

    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)
    pods: int = 0
    unknown: bool = False

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.cpu + other.cpu,
            self.memory + other.memory,
            self.pods + other.pods,
            self.unknown or other.unknown,
        )

    def fits(self, room: Amount) -> bool:
        """Whether it may fit into that much room: who asks for none of a resource fits even where that is overspent."""
        return (self.unknown or room.unknown) or (
            (self.cpu <= room.cpu or not self.cpu)
            and (self.memory <= room.memory or not self.memory)
            and self.pods <= room.pods
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.cpu - other.cpu,
            self.memory - other.memory,
            self.pods - other.pods,
            self.unknown or other.unknown,
        )


NOTHING: Final = Amount()


def of_vm(spec: Shares, policy: LauncherPolicy) -> Amount:
    """Return what a VM's pod requests: what is written into its manifest, rounded as it is there."""
    return Amount(policy.reference.cpu_of(spec.cpu), policy.reference.memory_of(spec.memory), 1)


def _ignore(_pod: Pod, _why: str) -> None:
    """Take no notice."""


def of_pod(pod: Pod, unreadable: Callable[[Pod, str], None] = _ignore) -> Amount:
    """Return what any pod requests; unknown if that cannot be read, which `unreadable` is told."""
    try:
        asked = requests.of_pod(pod)
    except QuantityError as error:
        unreadable(pod, str(error))
        return Amount(pods=1, unknown=True)
    return Amount(_counted(asked.cpu, _MILLICORE), _counted(asked.memory, _BYTE), 1)


def allocatable(node: Node) -> Amount:
    """Return what a node can hold in all: nothing of what it does not name; unknown if a part cannot be read."""
    found, unknown = [], False
    for resource, step in (("cpu", _MILLICORE), ("memory", _BYTE), ("pods", _BYTE)):
        text = node.status.allocatable.get(resource)
        try:
            found.append(_ZERO if text is None else _counted(parse_quantity(text), step))
        except QuantityError:
            found.append(_ZERO)
            unknown = True
    cpu, memory, pods = found
    return Amount(cpu, memory, int(pods), unknown=unknown)


def unreadable(node: Node) -> Iterator[str]:
    """Yield what is no quantity in what a node can hold, for a log."""
    for resource in ("cpu", "memory", "pods"):
        text = node.status.allocatable.get(resource)
        if text is not None:
            try:
                parse_quantity(text)
            except QuantityError as error:
                yield f"{resource}: {error}"


def node_of(pod: Pod) -> str | None:
    """Return the node on which a pod counts: the one it has, or else the one that the scheduler promised it."""
    return pod.spec.node_name or pod.status.nominated_node_name


def holding(pod: Pod, unreadable: Callable[[Pod, str], None] = _ignore) -> tuple[str, Amount] | None:
    """Return where a live pod holds how much, whoever's it is; None if it holds nothing."""
    node = node_of(pod)
    return (node, of_pod(pod, unreadable)) if node and not pod.done else None


def _counted(value: Decimal, step: Decimal) -> Decimal:
    return min(round_up(value, step), _LARGEST)


class Obstacle(StrEnum):
    """Why the scheduler may not put a VM's next pod on a node at all, in the words of a refusal."""

    OWN = "where it runs"
    ELSEWHERE = "not the one asked for"
    CORDONED = "cordoned"
    NOT_READY = "not ready"
    LABELS = "without a matching label"
    TAINT = "with a taint that it does not tolerate"


def obstacle(node: Node, policy: LauncherPolicy, placement: Placement) -> Obstacle | None:
    """Return what keeps the VM's next pod off a node, whatever room there is; None if nothing does."""
    name, labels = node.metadata.name, node.metadata.labels
    repelling = [taint.key for taint in node.spec.taints if repels(taint, policy)]
    if placement.node not in (None, name):
        return Obstacle.ELSEWHERE
    if placement.avoid == name:
        return Obstacle.OWN
    if any(labels.get(key) != value for key, value in (*policy.node_selector.items(), *placement.selector)):
        return Obstacle.LABELS
    if node.spec.unschedulable:
        return Obstacle.CORDONED
    if any(key in _UNREADY for key in repelling):
        return Obstacle.NOT_READY
    return Obstacle.TAINT if repelling else None


def repels(taint: Taint, policy: LauncherPolicy) -> bool:
    """Whether a taint keeps VMs' pods away."""
    return taint.effect in _REPELLING and not any(
        toleration.key == taint.key
        and toleration.value in (None, taint.value)
        and toleration.effect in (None, taint.effect)
        for toleration in policy.tolerations
    )
