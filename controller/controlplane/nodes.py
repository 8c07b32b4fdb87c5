"""The fake nodes: what they look like, and which changes lead from the nodes there are to those wanted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.controlplane.api import MANAGER
from controller.controlplane.errors import InvalidSettingError
from controller.kube.quantity import QuantityError, parse_quantity

_PREFIX = "kwok-node-"
_NAME = re.compile(rf"^{_PREFIX}([1-9]\d*)$")

FAKE_ANNOTATION = "kwok.x-k8s.io/node"

# Who wrote the nodes of our planes. Earlier releases gave the API server no name, which then notes this one; other
# clients that people make nodes with (kubectl, client libraries, curl) all give theirs.
_MAKERS = (MANAGER, "unknown")

# Until kube-controller-manager has seen a new node Ready, these keep pods away from it.
_STARTUP_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What one fake node offers, as Kubernetes quantities."""

    cpu: str = "32"
    memory: str = "256Gi"
    pods: int = 110

    def resources(self) -> dict[str, str]:
        """Return it as a Kubernetes resource list."""
        return {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods)}

    def same_as(self, other: "NodeCapacity") -> bool:
        """Tell whether both are worth the same: the API server may write `1.5Gi` as `1536Mi`."""
        theirs = other.resources()
        return all(_same(quantity, theirs[name]) for name, quantity in self.resources().items())


def _same(one: str, other: str) -> bool:
    try:
        return parse_quantity(one) == parse_quantity(other)
    except QuantityError:
        return one == other


def check_capacity(capacity: NodeCapacity) -> None:
    """Refuse what the API server would refuse later, in words of its own."""
    for setting, quantity in (("node CPU", capacity.cpu), ("node memory", capacity.memory)):
        if not _is_amount(quantity):
            raise InvalidSettingError(setting, f"{quantity!r} is no Kubernetes quantity, such as 32 or 256Gi")
    if capacity.pods < 1:
        raise InvalidSettingError("node pods", "a node holds at least one pod")


def _is_amount(quantity: str) -> bool:
    try:
        return parse_quantity(quantity) >= 0
    except QuantityError:
        return False


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The names to create, to give another capacity, and to delete."""

    create: tuple[str, ...]
    resize: tuple[str, ...]
    delete: tuple[str, ...]


def plan_nodes(existing: Mapping[str, NodeCapacity], count: int, capacity: NodeCapacity) -> NodePlan:
    """Plan how to get to `kwok-node-1 … count`; nodes of other names are somebody else's and stay."""
    wanted = [f"{_PREFIX}{number}" for number in range(1, count + 1)]
    numbers = {int(match[1]) for name in existing if (match := _NAME.match(name))}
    return NodePlan(
        create=tuple(name for name in wanted if name not in existing),
        resize=tuple(name for name in wanted if not existing.get(name, capacity).same_as(capacity)),
        delete=tuple(f"{_PREFIX}{number}" for number in sorted(numbers, reverse=True) if number > count),
    )


def has_our_name(name: str) -> bool:
    """Tell whether a name is one that we give."""
    return _NAME.match(name) is not None


def is_fake(node: Mapping[str, Any]) -> bool:
    """Tell whether a node object is one that KWOK plays."""
    return FAKE_ANNOTATION in node["metadata"].get("annotations", {})


def is_ours(node: Mapping[str, Any]) -> bool:
    """Tell whether a node object is a fake one that we made; a write of its status alone did not make it."""
    return is_fake(node) and any(
        entry.get("manager") in _MAKERS and not entry.get("subresource")
        for entry in node["metadata"].get("managedFields", [])
    )


def capacity_of(node: Mapping[str, Any]) -> NodeCapacity:
    """Read the capacity of a node object, whoever wrote it; what is absent or no quantity is like no other."""
    resources = node.get("status", {}).get("capacity", {})
    try:
        pods = int(parse_quantity(resources.get("pods")))
    except QuantityError:
        pods = 0
    return NodeCapacity(cpu=resources.get("cpu", ""), memory=resources.get("memory", ""), pods=pods)


def is_schedulable(node: Mapping[str, Any]) -> bool:
    """Tell whether a node is Ready and free of the taints that a new node starts with."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    taints = [taint["key"] for taint in node.get("spec", {}).get("taints", [])]
    return ready and not any(key in taints for key in _STARTUP_TAINTS)


def status_of(capacity: NodeCapacity) -> dict[str, Any]:
    """Return the part of a node's status that states its capacity."""
    return {"capacity": capacity.resources(), "allocatable": capacity.resources()}


def node_manifest(name: str, capacity: NodeCapacity) -> dict[str, Any]:
    """Describe a fake node: labelled like a real one, and tainted so that only what tolerates it lands there."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {FAKE_ANNOTATION: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "node-role.kubernetes.io/agent": "",
                "type": "kwok",
            },
        },
        "spec": {"taints": [{"key": FAKE_ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {**status_of(capacity), "phase": "Running"},
    }
