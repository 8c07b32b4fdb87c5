"""Every node has its series, with its load."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from controller.domain import names
from controller.domain.ratio import ReferenceNode
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.kube.kinds import Node, NodeStatus, Pod
from controller.kube.meta import ObjectMeta
from controller.observe.loads import NodeLoads
from controller.telemetry.nodes import NodeSeries
from tests.unit.domain.builders import pod, running, vm

REFERENCE = ReferenceNode.of(cpu="32", memory="256Gi")


def node(name: str, version: int = 1, cpu: str = "32") -> Node:
    """Return a node."""
    return Node(
        metadata=ObjectMeta(name=name, resource_version=str(version)),
        status=NodeStatus(allocatable={"cpu": cpu, "memory": "256Gi"}),
    )


class Scene:
    """Two nodes with their series."""

    def __init__(self) -> None:
        self.nodes: Store[Node] = Store()
        self.pods: Store[Pod] = Store()
        self.others: Store[Pod] = Store()
        self.series_of_nodes = NodeSeries(NodeLoads(self.nodes, [self.pods, self.others], REFERENCE))
        self.nodes.replace([node("kwok-node-1"), node("kwok-node-2")], "10")
        self.pods.replace([], "10")
        self.others.replace([], "10")

    def series(self, family: str) -> dict[str, float]:
        """Return a family's values by node."""
        text = "".join(self.series_of_nodes.pieces())
        [found] = [item for item in text_string_to_metric_families(text) if item.name == family]
        return {sample.labels["node"]: sample.value for sample in found.samples}


def test_an_idle_node_is_at_0_in_every_family() -> None:
    """It has samples, since load balancers look for idle nodes."""
    scene = Scene()
    for family in (
        "vm_count",
        "cpu_usage_ratio",
        "memory_usage_ratio",
        "cpu_requested_ratio",
        "memory_requested_ratio",
    ):
        assert scene.series(f"node_{family}") == {"kwok-node-1": 0, "kwok-node-2": 0}


def test_a_running_vm_counts_on_its_node() -> None:
    """By its usage and by its requests."""
    scene = Scene()
    scene.pods.apply(Change.of(running(vm(cpu="0.5", memory="0.25", annotations={names.CPU_CONSUMPTION: "0.75"}))))

    assert scene.series("node_vm_count") == {"kwok-node-1": 1, "kwok-node-2": 0}
    assert scene.series("node_cpu_usage_ratio")["kwok-node-1"] == 0.75
    assert scene.series("node_cpu_requested_ratio")["kwok-node-1"] == 0.5
    assert scene.series("node_memory_usage_ratio")["kwok-node-1"] == 0.25
    assert scene.series("node_memory_requested_ratio")["kwok-node-1"] == 0.25


def test_a_vm_without_a_running_pod_does_not_count() -> None:
    """Whether its pod was deleted, ended, or is missing from a new list."""
    scene = Scene()
    one, two, three = (running(vm(name=f"vm-{n}", uid=f"u{n}")) for n in range(3))
    for item in (one, two, three):
        scene.pods.apply(Change.of(item))
    assert scene.series("node_vm_count")["kwok-node-1"] == 3

    scene.pods.apply(Change.of(one, deleted=True))
    assert scene.series("node_vm_count")["kwok-node-1"] == 2

    scene.pods.apply(Change.of(pod(vm(name="vm-1", uid="u1"), phase="Failed", node="kwok-node-1")))
    assert scene.series("node_vm_count")["kwok-node-1"] == 1

    scene.pods.replace([], "500")
    assert scene.series("node_vm_count")["kwok-node-1"] == 0
    assert scene.series("node_cpu_usage_ratio")["kwok-node-1"] == 0


def test_pods_of_all_namespaces_add_up() -> None:
    """Each namespace has its own store."""
    scene = Scene()
    scene.pods.apply(Change.of(running(vm(name="a", uid="a", cpu="0.1"))))
    scene.others.apply(Change.of(running(vm(name="b", uid="b", cpu="0.2"))))

    assert scene.series("node_cpu_usage_ratio")["kwok-node-1"] == 0.3


def test_a_deleted_node_loses_its_series() -> None:
    """Even if pods name it; they count again when it is re-created."""
    scene = Scene()
    scene.pods.apply(Change.of(running(vm())))

    scene.nodes.apply(Change.of(node("kwok-node-1", 20), deleted=True))
    assert scene.series("node_vm_count") == {"kwok-node-2": 0}

    scene.nodes.apply(Change.of(node("kwok-node-1", 30)))
    assert scene.series("node_vm_count") == {"kwok-node-2": 0, "kwok-node-1": 1}


def test_a_larger_allocatable_lowers_the_ratio() -> None:
    """The newest allocatable counts."""
    scene = Scene()
    scene.pods.apply(Change.of(running(vm(cpu="0.5"))))
    scene.nodes.apply(Change.of(node("kwok-node-1", 20, cpu="64")))

    assert scene.series("node_cpu_usage_ratio")["kwok-node-1"] == 0.25


def test_a_node_with_a_malformed_capacity_has_a_ratio_of_1() -> None:
    """A missing sample would stop a load balancer, and a 0 would attract VMs."""
    scene = Scene()
    scene.nodes.apply(Change.of(node("kwok-node-1", 20, cpu="many")))
    scene.nodes.apply(Change.of(node("kwok-node-2", 20, cpu="0")))

    for family in ("cpu_usage_ratio", "cpu_requested_ratio"):
        assert scene.series(f"node_{family}") == {"kwok-node-1": 1, "kwok-node-2": 1}
    assert scene.series("node_memory_usage_ratio") == {"kwok-node-1": 0, "kwok-node-2": 0}
