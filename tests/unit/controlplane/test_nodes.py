"""The plan from the existing nodes to the wanted ones, and the manifest of a fake node."""

import pytest

from controller.controlplane.errors import InvalidSettingError
from controller.controlplane.nodes import (
    NodeCapacity,
    NodePlan,
    capacity_of,
    check_capacity,
    is_schedulable,
    node_manifest,
    plan_nodes,
)

SIZE = NodeCapacity()


def fleet(*numbers: int, capacity: NodeCapacity = SIZE) -> dict[str, NodeCapacity]:
    """Return nodes by their numbers."""
    return {f"kwok-node-{number}": capacity for number in numbers}


def test_first_nodes_are_created_from_one() -> None:
    """Their names are documented."""
    plan = plan_nodes({}, 2, SIZE)

    assert plan == NodePlan(create=("kwok-node-1", "kwok-node-2"), resize=(), delete=())


def test_growing_adds_the_next_nodes() -> None:
    """The existing nodes stay unchanged."""
    assert plan_nodes(fleet(1, 2, 3), 5, SIZE).create == ("kwok-node-4", "kwok-node-5")


def test_shrinking_removes_the_highest_nodes() -> None:
    """By number, not alphabetically: 10 comes after 3."""
    assert plan_nodes(fleet(1, 2, 3, 10), 2, SIZE).delete == ("kwok-node-10", "kwok-node-3")


def test_the_plan_is_empty_if_the_nodes_are_the_wanted_ones() -> None:
    """`up` can be repeated."""
    assert plan_nodes(fleet(1, 2, 3), 3, SIZE) == NodePlan((), (), ())


def test_gaps_are_filled() -> None:
    """A node that another client deleted is created again."""
    assert plan_nodes(fleet(1, 3), 3, SIZE).create == ("kwok-node-2",)


def test_nodes_of_another_capacity_are_resized() -> None:
    """The last requested size counts."""
    existing = fleet(1, 2) | fleet(2, capacity=NodeCapacity(cpu="64"))

    assert plan_nodes(existing, 2, SIZE).resize == ("kwok-node-2",)


def test_nodes_with_other_names_stay() -> None:
    """Only nodes with our names are deleted."""
    existing = {"gpu-node": SIZE, "kwok-node-x": SIZE, "kwok-node-01": SIZE}

    assert plan_nodes(existing, 0, SIZE).delete == ()


def test_manifest_is_labelled_like_a_real_node() -> None:
    """So that affinities and topology keys work as on a real cluster."""
    labels = node_manifest("kwok-node-1", SIZE)["metadata"]["labels"]

    assert labels["kubernetes.io/hostname"] == "kwok-node-1"
    assert labels["kubernetes.io/os"] == "linux"
    assert labels["kubernetes.io/arch"] == "amd64"
    assert labels["node-role.kubernetes.io/agent"] == ""
    assert labels["type"] == "kwok"


def test_manifest_is_marked_and_tainted_as_fake() -> None:
    """KWOK simulates it, and only pods that tolerate the taint land there."""
    manifest = node_manifest("kwok-node-1", SIZE)

    assert manifest["metadata"]["annotations"]["kwok.x-k8s.io/node"] == "fake"
    assert manifest["spec"]["taints"] == [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]


def test_manifest_states_the_capacity() -> None:
    """The capacity that is read later equals the one that was written."""
    capacity = NodeCapacity(cpu="4", memory="8Gi", pods=20)

    assert capacity_of(node_manifest("kwok-node-1", capacity)) == capacity


@pytest.mark.parametrize(
    ("capacity", "pods"),
    [
        ({"cpu": "1k", "memory": "1Ti", "pods": "1M"}, 1_000_000),
        ({"cpu": "1k", "memory": "1Ti"}, 0),
        ({"pods": "some"}, 0),
        ({"pods": "1e3"}, 1000),
        ({}, 0),
    ],
)
def test_the_capacity_of_any_node_can_be_read(capacity: dict[str, str], pods: int) -> None:
    """KWOK gives a node without a capacity a million pods."""
    assert capacity_of({"status": {"capacity": capacity}}).pods == pods
    assert capacity_of({"metadata": {}}) == NodeCapacity("", "", 0)


def test_an_equal_capacity_in_another_form_needs_no_change() -> None:
    """The API server may write the quantity in another form."""
    existing = {"kwok-node-1": NodeCapacity(cpu="1k", memory="1536Mi", pods=110)}
    assert plan_nodes(existing, 1, NodeCapacity(cpu="1000", memory="1.5Gi")).resize == ()


def observed(*, ready: str, taint: str) -> dict[str, object]:
    """Return a node as the API server returns it."""
    return {
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
        "spec": {"taints": [{"key": taint}]},
    }


def test_ready_node_is_schedulable() -> None:
    """The taint of fake nodes does not count."""
    assert is_schedulable(observed(ready="True", taint="kwok.x-k8s.io/node"))


def test_unready_node_is_not_schedulable() -> None:
    """KWOK does not serve it yet."""
    assert not is_schedulable(observed(ready="False", taint="kwok.x-k8s.io/node"))


def test_ready_node_with_a_startup_taint_is_not_schedulable_yet() -> None:
    """The taint keeps pods away although the node is Ready."""
    assert not is_schedulable(observed(ready="True", taint="node.kubernetes.io/not-ready"))


@pytest.mark.parametrize("quantity", ["32", "0.5", "500m", "1k", "4G", "16Gi", "1Ti", "256e9"])
def test_quantities_are_accepted(quantity: str) -> None:
    """In every form that makes sense for a node."""
    check_capacity(NodeCapacity(cpu=quantity, memory=quantity))


@pytest.mark.parametrize("quantity", ["", "32 cores", "16GB", "-1", "many"])
def test_a_malformed_quantity_is_refused(quantity: str) -> None:
    """Before a component is started."""
    with pytest.raises(InvalidSettingError, match="not a Kubernetes quantity"):
        check_capacity(NodeCapacity(memory=quantity))


def test_nodes_without_pods_are_refused() -> None:
    """No VM could run there."""
    with pytest.raises(InvalidSettingError, match="node pods: must be at least one"):
        check_capacity(NodeCapacity(pods=0))
