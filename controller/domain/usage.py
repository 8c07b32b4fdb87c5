"""Load of a node: what its VMs use now, and what its pods request.

Guarantees: exact decimals, so that a load that is added and subtracted again leaves exactly zero. Any share of a node
whose capacity is 0, absent or malformed is 1, so that the node never looks empty. A load is a function of one pod, so a
node's is the sum of its pods' in any order. A pod whose requests cannot be parsed counts as one pod, and the sum of the
others stays known.
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
    """The load of one pod on its node, or the sum of several.

    `running`: VMs that run. `cpu`, `memory`: what they use, in shares of the reference node. `requested`: what the
    scheduler counts, as far as it can be parsed; `unreadable`: pods of which it cannot. A ratio has at most 16
    characters, so the sum of 10⁹ of them fits in a decimal's 28 digits and stays exact.
    """

    running: int = 0
    cpu: Decimal = _NONE
    memory: Decimal = _NONE
    requested: Amount = NOTHING
    unreadable: int = 0

    @classmethod
    def holding(cls, amount: Amount) -> Load:
        """Return the load of a pod that requests an amount and uses nothing."""
        return cls(requested=replace(amount, unknown=False), unreadable=1) if amount.unknown else cls(requested=amount)

    @property
    def held(self) -> Amount:
        """What is requested; unknown while a part of it cannot be parsed."""
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
    """Return a pod's node, and its load there; None if it has no node, or has ended."""
    if pod is None or not pod.spec.node_name or pod.done:
        return None
    idle = Load.holding(of_pod(pod))
    if pod.status.phase != "Running":
        return pod.spec.node_name, idle
    cpu = _used(pod, names.CPU_CONSUMPTION, names.REQUESTED_CPU, CPU_MAX)
    memory = _used(pod, names.MEMORY_CONSUMPTION, names.REQUESTED_MEMORY, MEMORY_MAX)
    return pod.spec.node_name, Load(1, cpu, memory, idle.requested, idle.unreadable)


def same(old: Pod, new: Pod) -> bool:
    """Whether two states of a pod have equal loads for sure, decided without parsing either."""
    return (
        old.status.phase == new.status.phase
        and requests.same(old, new)
        and old.metadata.annotations == new.metadata.annotations
    )


def _used(pod: Pod, annotation: str, requested: str, maximum: Decimal) -> Decimal:
    """Return the ratio of the annotation, else the requested one; 0 if both are malformed."""
    annotations = pod.metadata.annotations
    for name in (annotation, requested):
        try:
            return parse_ratio(annotations.get(name), field=name, maximum=maximum)
        except RatioError:
            continue
    return _NONE


class Usage(NamedTuple):
    """The values of a node's metrics: running VMs, and shares of the node's own allocatable."""

    vms: int
    cpu: float
    memory: float
    cpu_requested: float
    memory_requested: float


def usage(node: Node, load: Load, reference: ReferenceNode) -> Usage:
    """Relate a load to its node. Beyond 1 the node is over-committed."""
    whole = allocatable(node)
    return Usage(
        load.running,
        _share(load.cpu * reference.cpu, whole.cpu),
        _share(load.memory * reference.memory, whole.memory),
        _share(load.requested.cpu, whole.cpu),
        _share(load.requested.memory, whole.memory),
    )


def _share(part: Decimal, whole: Decimal) -> float:
    return float(part / whole) if whole > 0 else _NO_CAPACITY
