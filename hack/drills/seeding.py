"""The VMs that a drill creates: their sizes are drawn from a seeded Random, so a seed determines the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from controller.domain import names

POD_LIMIT: Final = 100
"""The most VMs that are planned for a node; a fake node can hold 110 pods."""
_FILL: Final = 0.5
"""Share of the nodes that VMs use when one node is missing: the lost VMs must fit elsewhere."""
_LARGEST: Final = 0.25
_SPREAD: Final = 0.6


class SizeError(ValueError):
    """The drill cannot run in this size; the message says why."""


@dataclass(frozen=True, slots=True)
class DesiredVM:
    """A VM to create: its name, and its shares of a node."""

    name: str
    cpu: str
    memory: str

    def manifest(self) -> dict[str, Any]:
        """Return the object to create."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.VM_KIND,
            "metadata": {"name": self.name},
            "spec": {"resources": {"cpu": self.cpu, "memory": self.memory}},
        }


def roomy(rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
    """Return VMs of many sizes that fill about half of the nodes when one node is missing. Raises SizeError."""
    if nodes < 2:  # noqa: PLR2004 - a source and a target
        raise SizeError("needs at least 2 nodes: a VM that leaves one has to run on another")
    if vms > POD_LIMIT * (nodes - 1):
        raise SizeError(f"needs more nodes: without one of {nodes} nodes, at most {POD_LIMIT * (nodes - 1)} VMs fit")
    mean = min(_LARGEST / (1 + _SPREAD), _FILL * (nodes - 1) / vms)
    return tuple(
        DesiredVM(name, *(f"{mean * rng.uniform(1 - _SPREAD, 1 + _SPREAD):.4f}" for _ in range(2)))
        for name in _names(vms)
    )


def packed(vms: int, nodes: int) -> tuple[DesiredVM, ...]:
    """Return equal VMs, the same number for each node, which then has no capacity for another. Raises SizeError."""
    if vms < nodes or vms % nodes:
        raise SizeError(f"needs as many VMs on each node: a multiple of {nodes} (--nodes), not {vms}")
    if vms > POD_LIMIT * nodes:
        raise SizeError(f"needs more nodes: on {nodes} nodes, at most {POD_LIMIT * nodes} VMs fit")
    share = f"{int(10_000 * nodes / vms) / 10_000:.4f}"
    return tuple(DesiredVM(name, share, share) for name in _names(vms))


def _names(count: int) -> list[str]:
    return [f"vm-{number:0{len(str(count))}}" for number in range(1, count + 1)]
