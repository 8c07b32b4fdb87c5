"""Which VMs a drill makes: sizes drawn from a seeded Random, so that the same seed makes the same fleet."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from controller.domain import names

POD_LIMIT: Final = 100
"""VMs that a node is given at most; a fake node holds 110 pods."""
_FILL: Final = 0.5
"""Share of the nodes that VMs take up when one node is missing: what is lost must fit elsewhere."""
_LARGEST: Final = 0.25
_SPREAD: Final = 0.6


class SizeError(ValueError):
    """The drill cannot be had in this size; the text says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A VM to make: its name, and its shares of a node."""

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


def roomy(rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
    """Wish for VMs of many sizes that fill about half of the nodes when one of them is missing."""
    if nodes < 2:  # noqa: PLR2004 - one to leave and one to go to
        raise SizeError("needs at least 2 nodes: what leaves one has to go to another")
    if vms > POD_LIMIT * (nodes - 1):
        raise SizeError(f"needs more nodes: without one, {nodes} nodes are given at most {POD_LIMIT * (nodes - 1)} VMs")
    mean = min(_LARGEST / (1 + _SPREAD), _FILL * (nodes - 1) / vms)
    return tuple(
        Wish(name, *(f"{mean * rng.uniform(1 - _SPREAD, 1 + _SPREAD):.4f}" for _ in range(2))) for name in _names(vms)
    )


def packed(vms: int, nodes: int) -> tuple[Wish, ...]:
    """Wish for equal VMs of which every node holds the same number and then has no room for another."""
    if vms < nodes or vms % nodes:
        raise SizeError(f"needs as many VMs on each node: a multiple of {nodes} (--nodes), not {vms}")
    if vms > POD_LIMIT * nodes:
        raise SizeError(f"needs more nodes: {nodes} nodes are given at most {POD_LIMIT * nodes} VMs")
    share = f"{int(10_000 * nodes / vms) / 10_000:.4f}"
    return tuple(Wish(name, share, share) for name in _names(vms))


def _names(count: int) -> list[str]:
    return [f"vm-{number:0{len(str(count))}}" for number in range(1, count + 1)]
