"""VMs and nodes as callers of the Python API write them.

Guarantees: an invalid value is refused when the object is created, by the field's name; each is one class, under
whichever name its module is imported.
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
    """A virtual machine: what it requests, and where it is.

    `cpu_consumption` (0 to 1000) and `memory_consumption` (0 to 1) are shares of one reference node, as numbers or as
    decimal strings: a new VM requests that share of a node, and uses all of it. A PodManager sets `pod_name` and
    `node_name` from the cluster; None means none, or not known yet.

    Raises InvalidValueError if `id` is not a DNS label of at most 43 characters, and for ratios out of bounds.
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
    """A fake node, and the VMs that are listed under it.

    The list says which VMs a scenario has, not where they run: the real scheduler places them, on any node with free
    capacity. `cpu` and `memory` are Kubernetes quantities, `pods` is the number of pods that fit; they and the labels
    apply only if the node is created.

    Raises InvalidValueError for an invalid node.
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
    """Return the request for a VM, by its present fields. Raises InvalidValueError."""
    return vms.VMRequest(
        name=_values.vm_name(vm.id, "id"),
        namespace=namespace,
        cpu=_values.cpu(vm.cpu_consumption, "cpu_consumption"),
        memory=_values.memory(vm.memory_consumption, "memory_consumption"),
    )
