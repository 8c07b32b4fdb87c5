"""How loaded a node is: what its VMs use now, and what the scheduler packed onto it.

Guarantees: exact decimals, so that what was added and taken away again leaves exactly nothing; a share of a node whose
capacity is 0, absent or unreadable is 1, idle or not, so that it never looks empty; every load is a
function of one pod, so a node's is the sum of its pods' in any order; a pod whose requests cannot be read takes its
place, and leaves the sum a sum.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from controller.domain import names, requests
from controller.domain.capacity import NOTHING, Amount, allocatable, of_pod
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, RatioError, ReferenceNode, parse_ratio
from controller.kube.kinds import Node, Pod

_NONE: Final = Decimal(0)
_NO_CAPACITY: Final = 1.0
"""The share of a node on which nothing can be placed: full."""


class Load(msgspec.Struct, frozen=True):
    """What one pod puts on its node, or the sum of several.

    `running` counts VMs that run; `cpu` and `memory` are what they use, in shares of the reference node; `requested` is
    what the scheduler counts, as far as it can be read, and `unreadable` the pods of which it cannot. A ratio has at
    most 16 characters, so the sum of 10⁹ of them fits in a decimal's 28 digits and stays exact.
    """

    running: int = 0
    cpu: Decimal = _NONE
    memory: Decimal = _NONE
    requested: Amount = NOTHING
    unreadable: int = 0

    @classmethod
    def holding(cls, amount: Amount) -> Load:
        """Return the load of what holds an amount and uses nothing."""
        return cls(requested=replace(amount, unknown=False), unreadable=1) if amount.unknown else cls(requested=amount)

    @property
    def held(self) -> Amount:
        """What is requested; unknown while a part of it cannot be read."""
        return replace(self.requested, unknown=True) if self.unreadable else self.requested

    def __add__(self, other: Load) -> Load:
        return Load(
            self.running + other.running,
            self.cpu + other.cpu,
            self.memory + other.memory,
            self.requested + other.requested,
            self.unreadable + other.unreadable,
        )

    def __sub__(self, other: Load) -> Load:
        return Load(
            self.running - other.running,
            self.cpu - other.cpu,
            self.memory - other.memory,
            self.requested - other.requested,
            self.unreadable - other.unreadable,
        )


IDLE: Final = Load()


def of(pod: Pod | None) -> tuple[str, Load] | None:
    """Return what a pod puts on which node; None if it is on none, or has ended."""
    if pod is None or not pod.spec.node_name or pod.done:
        return None
    held = Load.holding(of_pod(pod))
    if pod.status.phase != "Running":
        return pod.spec.node_name, held
    cpu = _used(pod, names.CPU_CONSUMPTION, names.REQUESTED_CPU, CPU_MAX)
    memory = _used(pod, names.MEMORY_CONSUMPTION, names.REQUESTED_MEMORY, MEMORY_MAX)
    return pod.spec.node_name, Load(1, cpu, memory, held.requested, held.unreadable)


def same(old: Pod, new: Pod) -> bool:
    """Whether what a pod adds is the same for sure, told without reading either."""
    return (
        old.status.phase == new.status.phase
        and requests.same(old, new)
        and old.metadata.annotations == new.metadata.annotations
    )


def _used(pod: Pod, annotation: str, requested: str, maximum: Decimal) -> Decimal:
    """Return what the annotation says, else what was requested; 0 if somebody spoiled both."""
    annotations = pod.metadata.annotations
    for name in (annotation, requested):
        try:
            return parse_ratio(annotations.get(name), field=name, maximum=maximum)
        except RatioError:
            continue
    return _NONE


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
