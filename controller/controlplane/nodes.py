"""The fake nodes: their manifests, and the plan that leads from the existing nodes to the wanted ones."""

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

# The field managers that create the nodes of our planes. Earlier releases sent the API server no name, which then
# records "unknown"; other clients that create nodes (kubectl, client libraries, curl) all send theirs.
_CREATORS = (MANAGER, "unknown")

# These taints keep pods away from a new node until kube-controller-manager has seen it Ready.
_STARTUP_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """The capacity of one fake node, as Kubernetes quantities."""

    cpu: str = "32"
    memory: str = "256Gi"
    pods: int = 110

    def resources(self) -> dict[str, str]:
        """Return it as a Kubernetes resource list."""
        return {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods)}

    def same_as(self, other: "NodeCapacity") -> bool:
        """Return whether both are equal as quantities: the API server may write `1.5Gi` as `1536Mi`."""
        theirs = other.resources()
        return all(_same(quantity, theirs[name]) for name, quantity in self.resources().items())


def _same(one: str, other: str) -> bool:
    try:
        return parse_quantity(one) == parse_quantity(other)
    except QuantityError:
        return one == other


def check_capacity(capacity: NodeCapacity) -> None:
    """Raise InvalidSettingError for a capacity that the API server would refuse later."""
    for setting, quantity in (("node CPU", capacity.cpu), ("node memory", capacity.memory)):
        if not _is_amount(quantity):
            raise InvalidSettingError(setting, f"{quantity!r} is not a Kubernetes quantity, such as 32 or 256Gi")
    if capacity.pods < 1:
        raise InvalidSettingError("node pods", "must be at least one")


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
    """Return the changes that lead to `kwok-node-1 … count`; nodes of other names are not ours and stay."""
    wanted = [f"{_PREFIX}{number}" for number in range(1, count + 1)]
    numbers = {int(match[1]) for name in existing if (match := _NAME.match(name))}
    return NodePlan(
        create=tuple(name for name in wanted if name not in existing),
        resize=tuple(name for name in wanted if not existing.get(name, capacity).same_as(capacity)),
        delete=tuple(f"{_PREFIX}{number}" for number in sorted(numbers, reverse=True) if number > count),
    )


def has_our_name(name: str) -> bool:
    """Return whether a name has the form of our nodes' names."""
    return _NAME.match(name) is not None


def is_fake(node: Mapping[str, Any]) -> bool:
    """Return whether a node object is one that KWOK simulates."""
    return FAKE_ANNOTATION in node["metadata"].get("annotations", {})


def is_ours(node: Mapping[str, Any]) -> bool:
    """Return whether a node object is a fake one that we created; a write of its status alone does not count."""
    return is_fake(node) and any(
        entry.get("manager") in _CREATORS and not entry.get("subresource")
        for entry in node["metadata"].get("managedFields", [])
    )


def capacity_of(node: Mapping[str, Any]) -> NodeCapacity:
    """Read the capacity of any node object; an absent or malformed quantity equals none that we set."""
    resources = node.get("status", {}).get("capacity", {})
    try:
        pods = int(parse_quantity(resources.get("pods")))
    except QuantityError:
        pods = 0
    return NodeCapacity(cpu=resources.get("cpu", ""), memory=resources.get("memory", ""), pods=pods)


def is_schedulable(node: Mapping[str, Any]) -> bool:
    """Return whether a node is Ready and free of the taints of a new node."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    taints = [taint["key"] for taint in node.get("spec", {}).get("taints", [])]
    return ready and not any(key in taints for key in _STARTUP_TAINTS)


def status_of(capacity: NodeCapacity) -> dict[str, Any]:
    """Return the part of a node's status that states its capacity."""
    return {"capacity": capacity.resources(), "allocatable": capacity.resources()}


def node_manifest(name: str, capacity: NodeCapacity) -> dict[str, Any]:
    """Return a fake node: labelled like a real one, and tainted so that only pods that tolerate it land there."""
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
