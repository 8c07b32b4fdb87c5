"""A scenario as a value: groups of nodes, groups of VMs, and the VMs' profiles.

Guarantees: frozen and complete: nothing is drawn later, so two readings of one file are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet
from controller.scenario.profiles import Part, Profile


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes that differ only in their names."""

    name: str
    nodes: tuple[DesiredNode, ...]


@dataclass(frozen=True, slots=True)
class VMGroup:
    """VMs of one distribution and one profile; with a profile of None their consumption is their request."""

    name: str
    vms: tuple[DesiredVM, ...]
    parts: tuple[Part, ...]
    """The part of each VM, in the order of `vms`; empty without a profile."""
    cpu: Profile | None
    memory: Profile | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file. A namespace of None is the kubeconfig's.

    `speed` is simulated seconds in a real one; None: those of the VMs' controller.
    """

    name: str
    namespace: str | None
    speed: float | None
    node_groups: tuple[NodeGroup, ...]
    vm_groups: tuple[VMGroup, ...]

    @property
    def fleet(self) -> Fleet:
        """The nodes and VMs to load."""
        return Fleet(
            self.name,
            nodes=tuple(chain.from_iterable(group.nodes for group in self.node_groups)),
            vms=tuple(chain.from_iterable(group.vms for group in self.vm_groups)),
        )

    @property
    def exact(self) -> Scenario:
        """The same scenario, whose VMs begin on the nodes that it names and on no others."""
        groups = (
            replace(group, vms=tuple(replace(vm, exact=vm.node is not None) for vm in group.vms))
            for group in self.vm_groups
        )
        return replace(self, vm_groups=tuple(groups))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the VMs that have a profile."""
        return tuple(chain.from_iterable(group.parts for group in self.vm_groups))

    @property
    def changes(self) -> bool:
        """Whether any consumption changes over time."""
        return any(part.end != 0 for part in self.parts)
