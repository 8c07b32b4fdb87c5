"""The state of the cluster after the events of a history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from controller.observe import judge
from controller.observe.history import ClusterState, MigrationSeen, NodeSeen, PodSeen, Seen, VMSeen

NAMES = some.sampled_from("abc")
NODES = some.sampled_from(["n1", "n2"])
PODS = some.builds(
    PodSeen,
    at=some.just(0),
    uid=NAMES,
    name=NAMES,
    vm_uid=some.sampled_from(["", "v", "w"]),
    vm=some.just("vm"),
    node=some.none() | NODES,
    phase=some.sampled_from(["Pending", "Running", "Succeeded"]),
    terminating=some.booleans(),
    deleted=some.booleans(),
)
EVENTS = some.lists(PODS | some.builds(NodeSeen, at=some.just(0), name=NODES, deleted=some.booleans()))


def test_a_pruned_migration_is_retained_with_its_phase() -> None:
    """The controller deletes all but the last few."""
    picture = ClusterState()
    picture.apply(MigrationSeen(1, "m", "m", "vm", "Succeeded"))
    picture.apply(MigrationSeen(2, "m", "m", "vm", "Succeeded", deleted=True))
    assert picture.migrations["m"].at == 1
    assert picture.migrations["m"].phase == "Succeeded"


def test_a_migration_deleted_in_progress_is_over() -> None:
    """It has no further events."""
    picture = ClusterState()
    picture.apply(MigrationSeen(1, "m", "m", "vm", "Starting"))
    assert picture.migrations["m"].moving
    picture.apply(MigrationSeen(2, "m", "m", "vm", "Starting", deleted=True))
    assert picture.migrations["m"].over
    assert not picture.migrations["m"].moving


def test_deletions_remove_all_state() -> None:
    """Of pods, VMs and nodes."""
    picture = ClusterState()
    picture.apply(NodeSeen(0, "n1"))
    picture.apply(VMSeen(0, "v", "vm"))
    picture.apply(PodSeen(1, "p", "pod", "v", "vm", "n1", "Running"))
    assert [pod.name for pod in picture.on("n1")] == ["pod"]
    assert picture.serving("v") is not None
    picture.apply(PodSeen(2, "p", "pod", "v", "vm", "n1", "Running", deleted=True))
    picture.apply(VMSeen(2, "v", "vm", deleted=True))
    picture.apply(NodeSeen(3, "n1", deleted=True))
    assert picture == ClusterState()


@given(EVENTS)
def test_the_pods_of_a_node_match_a_fresh_count(events: list[Seen]) -> None:
    """Whatever the order in which pods are created, moved and deleted."""
    picture = ClusterState()
    for event in events:
        picture.apply(event)
        for node in ("n1", "n2"):
            there = [pod for pod in picture.pods.values() if pod.live and pod.node == node]
            assert sorted(pod.uid for pod in picture.on(node)) == sorted(pod.uid for pod in there)
            assert picture.load(node) == (len(there) if node in picture.nodes else 0)
        for vm_uid in ("v", "w"):
            of_vm = [pod for pod in picture.pods.values() if pod.vm_uid == vm_uid]
            assert sorted(pod.uid for pod in picture.pods_of(vm_uid)) == sorted(pod.uid for pod in of_vm)
    ends = {node: points[-1][1] for node, points in judge.loads(events).items()}
    assert ends == {node: picture.load(node) for node in ends}
    assert picture.nodes <= ends.keys()
