"""Capacity of nodes: on which of them a VM fits, ever and now. The scheduler's checks, run before a migration.

Guarantees: exact decimals in the units that the scheduler compares (millicores, bytes, pods). A node counts only if the
launcher pod's selector and tolerations and the migration's placement allow it. A quantity that cannot be parsed is
unknown, neither zero nor full, so that such a node may fit. The scheduler decides: these checks only keep a VM from
being stopped in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from controller.domain import requests, scheduling
from controller.domain.vm.launcher import Shares
from controller.domain.vm.placement import Placement, Requirements
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Node, Pod
from controller.kube.quantity import QuantityError, parse_quantity, round_up

_ZERO: Final = Decimal(0)
_MILLICORE: Final = Decimal("0.001")
_BYTE: Final = Decimal(1)
_LARGEST: Final = Decimal(2**63 - 1)
"""The largest number that the scheduler counts to. The cap keeps sums exact for any request."""
_UNREADY: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""The node lifecycle controller's taints while a node's Ready condition is False or Unknown."""


class Amount(msgspec.Struct, frozen=True):
    """CPU in cores, memory in bytes, and a number of pods.

    `unknown`: a part of it cannot be parsed. What is computed from an unknown amount is unknown.
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

    def fits(self, free: Amount) -> bool:
        """Whether it may fit into free capacity. A resource of which it has none may be overcommitted there."""
        return (self.unknown or free.unknown) or (
            (self.cpu <= free.cpu or not self.cpu)
            and (self.memory <= free.memory or not self.memory)
            and self.pods <= free.pods
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
    """Return what a VM's pod requests, rounded as in its manifest."""
    return Amount(policy.reference.cpu_of(spec.cpu), policy.reference.memory_of(spec.memory), 1)


def _ignore(_pod: Pod, _why: str) -> None:
    """Ignore an unreadable pod."""


def of_pod(pod: Pod, unreadable: Callable[[Pod, str], None] = _ignore) -> Amount:
    """Return what any pod requests; unknown if that cannot be parsed, which `unreadable` is called with."""
    try:
        found = requests.of_pod(pod)
    except QuantityError as error:
        unreadable(pod, str(error))
        return Amount(pods=1, unknown=True)
    return Amount(_counted(found.cpu, _MILLICORE), _counted(found.memory, _BYTE), 1)


def allocatable(node: Node) -> Amount:
    """Return a node's allocatable: 0 of a resource that it does not name; unknown if a part cannot be parsed."""
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
    """Yield, for a log, the quantities of a node's allocatable that cannot be parsed."""
    for resource in ("cpu", "memory", "pods"):
        text = node.status.allocatable.get(resource)
        if text is not None:
            try:
                parse_quantity(text)
            except QuantityError as error:
                yield f"{resource}: {error}"


def node_of(pod: Pod) -> str | None:
    """Return the node on which a pod counts: the one it is bound to, or else the one that the scheduler nominated."""
    return pod.spec.node_name or pod.status.nominated_node_name


def holding(pod: Pod, unreadable: Callable[[Pod, str], None] = _ignore) -> tuple[str, Amount] | None:
    """Return the node of a live pod, of any owner, and its requests; None if it has ended or has no node."""
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
    AFFINITY = "that its node affinity excludes"
    TAINT = "with a taint that it does not tolerate"


def obstacle(node: Node, wanted: Requirements, placement: Placement) -> Obstacle | None:
    """Return what keeps the VM's next pod off a node regardless of free capacity; None if nothing does."""
    return next(_obstacles(node, wanted, placement), None)


def _obstacles(node: Node, wanted: Requirements, placement: Placement) -> Iterator[Obstacle]:
    name, labels = node.metadata.name, node.metadata.labels
    if placement.node not in (None, name):
        yield Obstacle.ELSEWHERE
    if placement.avoid == name:
        yield Obstacle.OWN
    if any(labels.get(key) != value for key, value in (*wanted.selector, *placement.selector)):
        yield Obstacle.LABELS
    if not scheduling.selects(wanted.required, node):
        yield Obstacle.AFFINITY
    if node.spec.unschedulable and scheduling.repels(scheduling.UNSCHEDULABLE, wanted.tolerations):
        yield Obstacle.CORDONED
    repelling = [taint.key for taint in node.spec.taints if scheduling.repels(taint, wanted.tolerations)]
    if any(key in _UNREADY for key in repelling):
        yield Obstacle.NOT_READY
    if repelling:
        yield Obstacle.TAINT
