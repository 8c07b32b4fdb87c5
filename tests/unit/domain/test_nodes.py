"""Whether a node's kubelet can finish a deletion."""

from __future__ import annotations

import pytest

from controller.domain.nodes import OUT_OF_SERVICE, silence
from controller.kube.kinds import Node, NodeSpec, NodeStatus, Taint
from controller.kube.meta import Condition, ObjectMeta


def node(*conditions: Condition, taints: tuple[Taint, ...] = ()) -> Node:
    """A node with these conditions and taints."""
    return Node(ObjectMeta(name="n"), NodeSpec(taints=taints), NodeStatus(conditions=conditions))


def ready(status: str, reason: str = "") -> Condition:
    """The condition that the node controller sets."""
    return Condition(type="Ready", status=status, reason=reason)


@pytest.mark.parametrize(
    "found",
    [None, node(), node(ready("True")), node(Condition(type="MemoryPressure", status="Unknown"), ready("True"))],
)
def test_a_node_that_is_ready_deleted_or_new_is_not_silent(found: Node | None) -> None:
    """An unknown state counts as healthy."""
    assert silence(found) is None


@pytest.mark.parametrize("status", ["False", "Unknown", "a later release's word"])
def test_a_node_that_is_not_ready_is_silent(status: str) -> None:
    """The message has the reason, if there is one."""
    assert silence(node(ready(status))) == "node n is not ready"
    assert silence(node(ready(status, "NodeStatusUnknown"))) == "node n is not ready (NodeStatusUnknown)"


def test_a_node_with_the_out_of_service_taint_is_not_silent() -> None:
    """Kubernetes removes its pods; no other taint has this effect."""
    assert silence(node(ready("Unknown"), taints=(Taint(OUT_OF_SERVICE, "", "NoExecute"),))) is None
    other = Taint("node.kubernetes.io/unreachable", "", "NoExecute")
    assert silence(node(ready("Unknown"), taints=(other,))) is not None
