"""VMs and nodes as the Python API's callers write them down.

Guarantees: what cannot be used is refused when it is written down, with the field's name; both are one class each,
however the module that offers them was imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.domain.ratio import DEFAULT_CPU, DEFAULT_MEMORY
from controller.operations import vms
from controller.sdk import _values
from controller.sdk._values import Ratio


@dataclass
class VM:
    """A virtual machine: what it asks for, and where it is.

    `cpu_consumption` (0 to 1000) and `memory_consumption` (0 to 1) are shares of one reference node, as numbers or as
    decimal strings: a new VM requests so much of a node, and uses all of it. `pod_name` and `node_name` are filled in
    from the cluster by a PodManager; None means none, or not known yet.

    Raises InvalidValueError for an `id` that is no DNS label of at most 43 characters, and for ratios out of bounds.
    """

    id: str
    cpu_consumption: Ratio
    memory_consumption: Ratio
    pod_name: str | None = None
    node_name: str | None = None

    def __post_init__(self) -> None:
        request(self, "default")


@dataclass
class Node:
    """A fake node, and VMs that are listed under it.

    The list says which VMs a scenario has, not where they run: the real scheduler places them, on any node with room.
    `cpu` and `memory` are Kubernetes quantities, `pods` the number of pods that fit; they and the labels hold where
    the node is created.

    Raises InvalidValueError for what cannot be a node.
    """

    name: str
    vms: list[VM] = field(default_factory=list)
    cpu: str | int = DEFAULT_CPU
    memory: str | int = DEFAULT_MEMORY
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _values.node_name(self.name)
        _values.quantity(self.cpu, "cpu")
        _values.quantity(self.memory, "memory")
        _values.count(self.pods, "pods")


def request(vm: VM, namespace: str) -> vms.VMRequest:
    """Return what a VM asks for, as it is now. Raises InvalidValueError."""
    return vms.VMRequest(
        name=_values.vm_name(vm.id, "id"),
        namespace=namespace,
        cpu=_values.cpu(vm.cpu_consumption, "cpu_consumption"),
        memory=_values.memory(vm.memory_consumption, "memory_consumption"),
    )
