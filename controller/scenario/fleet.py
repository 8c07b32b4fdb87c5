"""Desired nodes and VMs as values, and their manifests.

Guarantees: each node is a fake one (KWOK manages it, and its taint repels other pods); a VM is valid for the CRD if its
fields are; both carry the label that selects the fleet's objects, and no others, for removal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from controller.domain import names
from controller.domain.ratio import DEFAULT_CPU, DEFAULT_MEMORY
from controller.domain.vm.policy import FAKE_NODES, FAKE_TAINT
from controller.kube.kinds import Taint
from controller.operations import vms
from controller.operations.vms import PLAIN, Template

FAKE_ANNOTATION: Final = FAKE_TAINT.key
"""KWOK manages the nodes that have this annotation; their taint has the same key."""
_FAKE: Final = "fake"
FAKE_NODE_TAINT: Final = Taint(key=FAKE_TAINT.key, value=_FAKE, effect="NoSchedule")
"""The taint of every fake node."""
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a group of nodes or VMs: its name, and the file, line and field that describe it."""

    group: str
    file: str
    line: int
    field: str


@dataclass(frozen=True, slots=True)
class DesiredNode:
    """A fake node: its capacity as Kubernetes quantities, and labels and taints beyond those of every fake node."""

    name: str
    cpu: str = DEFAULT_CPU
    memory: str = DEFAULT_MEMORY
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    taints: tuple[Taint, ...] = ()
    origin: Origin | None = field(default=None, compare=False)

    @property
    def all_taints(self) -> tuple[Taint, ...]:
        """Every taint that the node is created with."""
        return (FAKE_NODE_TAINT, *self.taints)


@dataclass(frozen=True, slots=True)
class DesiredVM:
    """A VM: its requests and its initial consumption, as shares of the reference node in plain decimal strings.

    A consumption of None leaves the annotation out: the VM uses its request. `node` is the one that its first pod
    prefers; if `exact`, the only one on which this pod may run.
    """

    name: str
    cpu: str
    memory: str
    cpu_consumption: str | None = None
    memory_consumption: str | None = None
    origin: Origin | None = field(default=None, compare=False)
    template: Template = PLAIN
    node: str | None = None
    exact: bool = False

    @property
    def group(self) -> str:
        """The name of its group; a VM that no file describes is a group of its own."""
        return self.origin.group if self.origin is not None else self.name

    @property
    def controller_class(self) -> str | None:
        """The class of the controller that handles it."""
        return self.template.labels.get(names.CONTROLLER_CLASS)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes and VMs that belong together. `name` is the value of their label: at most 63 characters."""

    name: str
    nodes: tuple[DesiredNode, ...]
    vms: tuple[DesiredVM, ...]

    @property
    def classes(self) -> tuple[str | None, ...]:
        """The controller classes of its VMs, each once; that without a class if there are no VMs."""
        return tuple(dict.fromkeys(vm.controller_class for vm in self.vms)) or (None,)


def selector(fleet: str) -> str:
    """Return the label selector of a fleet's objects."""
    return f"{names.SCENARIO_LABEL}={fleet}"


def node_manifest(desired: DesiredNode, fleet: str) -> dict[str, Any]:
    """Return the body of the node to create."""
    capacity = {"cpu": desired.cpu, "memory": desired.memory, "pods": str(desired.pods)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": desired.name,
            "annotations": {FAKE_ANNOTATION: _FAKE, "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": desired.name,
                "kubernetes.io/os": "linux",
                "node-role.kubernetes.io/agent": "",
                **desired.labels,
                **FAKE_NODES,
                names.SCENARIO_LABEL: fleet,
            },
        },
        "spec": {"taints": [{"key": t.key, "value": t.value, "effect": t.effect} for t in desired.all_taints]},
        "status": {"capacity": capacity, "allocatable": capacity, "phase": "Running"},
    }


def vm_manifest(desired: DesiredVM, fleet: str, namespace: str) -> dict[str, Any]:
    """Return the body of the VM to create."""
    request = vms.VMRequest(
        desired.name, namespace, desired.cpu, desired.memory, desired.cpu_consumption, desired.memory_consumption
    )
    of_group = desired.template
    start = names.REQUIRED_START_NODE if desired.exact else names.START_NODE
    template = Template(
        labels={**of_group.labels, names.SCENARIO_LABEL: fleet},
        annotations={**of_group.annotations, **({start: desired.node} if desired.node is not None else {})},
        placement=of_group.placement,
    )
    return vms.manifest(request, template)
