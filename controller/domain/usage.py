"""How loaded a node is: what its VMs use now, and what the scheduler packed onto it.

Guarantees: exact decimals, so that what was added and taken away again leaves exactly nothing; a share of a node whose
capacity is 0, absent or unreadable is 1, idle or not, so that nobody takes it for an empty one; every value is a
function of one pod, so a load is the sum of its pods in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from controller.domain import names, requests
from controller.domain.capacity import NOTHING, Amount, allocatable, of_pod
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, RatioError, ReferenceNode, parse_ratio
from controller.kube.kinds import Node, Pod

_NONE: Final = Decimal(0)
_NO_CAPACITY: Final = 1.0
"""The share of a node on which nothing can be placed: full."""


class Contribution(NamedTuple):
    """What one pod adds to its node.

    `running` is 1 if its VM runs; `cpu` and `memory` are what that VM uses, in shares of the reference node. A ratio
    has at most 16 characters, so the sum of 10⁹ of them fits in a decimal's 28 digits and stays exact.
    """

    node: str
    running: int
    cpu: Decimal
    memory: Decimal
    requested: Amount


def of(pod: Pod | None) -> Contribution | None:
    """Return what a pod adds to a node; None if it is on none, or has ended."""
    if pod is None or not pod.spec.node_name or pod.done:
        return None
    running = pod.status.phase == "Running"
    return Contribution(
        pod.spec.node_name,
        int(running),
        _used(pod, names.CPU_CONSUMPTION, names.REQUESTED_CPU, CPU_MAX) if running else _NONE,
        _used(pod, names.MEMORY_CONSUMPTION, names.REQUESTED_MEMORY, MEMORY_MAX) if running else _NONE,
        _requested(pod),
    )


def same(old: Pod, new: Pod) -> bool:
    """Whether what a pod adds is the same for sure, told without reading either."""
    return (
        old.status.phase == new.status.phase
        and requests.same(old, new)
        and old.metadata.annotations == new.metadata.annotations
    )


def _requested(pod: Pod) -> Amount:
    """Return what a pod requests; no more than its place if that cannot be read, since a sum must stay a sum."""
    amount = of_pod(pod)
    return Amount(pods=amount.pods) if amount.unknown else amount


def _used(pod: Pod, annotation: str, requested: str, maximum: Decimal) -> Decimal:
    """Return what the annotation says, else what was requested; 0 if somebody spoiled both."""
    annotations = pod.metadata.annotations
    for name in (annotation, requested):
        try:
            return parse_ratio(annotations.get(name), field=name, maximum=maximum)
        except RatioError:
            continue
    return _NONE


@dataclass(slots=True)
class Load:
    """The sum of what is on one node."""

    pods: int = 0
    running: int = 0
    cpu: Decimal = _NONE
    memory: Decimal = _NONE
    requested: Amount = NOTHING

    def add(self, part: Contribution) -> None:
        """Add a pod."""
        self.pods += 1
        self.running += part.running
        self.cpu += part.cpu
        self.memory += part.memory
        self.requested += part.requested

    def remove(self, part: Contribution) -> None:
        """Take away a pod that was added."""
        self.pods -= 1
        self.running -= part.running
        self.cpu -= part.cpu
        self.memory -= part.memory
        self.requested -= part.requested


class Usage(NamedTuple):
    """What the metrics say about a node: running VMs, and shares of the node's own allocatable."""

    vms: int
    cpu: float
    memory: float
    cpu_requested: float
    memory_requested: float


def usage(node: Node, load: Load, reference: ReferenceNode) -> Usage:
    """Relate a load to its node. Beyond 1 the node is over-committed."""
    room = allocatable(node)
    return Usage(
        load.running,
        _share(load.cpu * reference.cpu, room.cpu),
        _share(load.memory * reference.memory, room.memory),
        _share(load.requested.cpu, room.cpu),
        _share(load.requested.memory, room.memory),
    )


def _share(part: Decimal, whole: Decimal) -> float:
    return float(part / whole) if whole > 0 else _NO_CAPACITY
