"""Whether anybody is there on a node."""

from __future__ import annotations

import pytest

from controller.domain.nodes import OUT_OF_SERVICE, silence
from controller.kube.kinds import Node, NodeSpec, NodeStatus, Taint
from controller.kube.meta import Condition, ObjectMeta


def node(*conditions: Condition, taints: tuple[Taint, ...] = ()) -> Node:
    """A node that says this of itself."""
    return Node(ObjectMeta(name="n"), NodeSpec(taints=taints), NodeStatus(conditions=conditions))


def ready(status: str, reason: str = "") -> Condition:
    """What the node controller says of a node."""
    return Condition(type="Ready", status=status, reason=reason)


@pytest.mark.parametrize(
    "found",
    [None, node(), node(ready("True")), node(Condition(type="MemoryPressure", status="Unknown"), ready("True"))],
)
def test_a_node_that_is_ready_gone_or_new_is_not_silent(found: Node | None) -> None:
    """What is not known is taken for well."""
    assert silence(found) is None


@pytest.mark.parametrize("status", ["False", "Unknown", "a later release's word"])
def test_a_node_that_is_not_ready_is_silent(status: str) -> None:
    """With the reason, if there is one."""
    assert silence(node(ready(status))) == "node n is not ready"
    assert silence(node(ready(status, "NodeStatusUnknown"))) == "node n is not ready (NodeStatusUnknown)"


def test_a_node_that_is_out_of_service_is_not_silent() -> None:
    """Kubernetes removes its pods; another taint says nothing of the kind."""
    assert silence(node(ready("Unknown"), taints=(Taint(OUT_OF_SERVICE, "", "NoExecute"),))) is None
    other = Taint("node.kubernetes.io/unreachable", "", "NoExecute")
    assert silence(node(ready("Unknown"), taints=(other,))) is not None
