"""The state that a history adds up to."""

from __future__ import annotations

from controller.observe.history import MigrationSeen, NodeSeen, Picture, PodSeen, VMSeen


def test_a_pruned_migration_keeps_how_it_ended() -> None:
    """The controller keeps only the last few; what became of the others must not be lost."""
    picture = Picture()
    picture.take(MigrationSeen(1, "m", "m", "vm", "Succeeded"))
    picture.take(MigrationSeen(2, "m", "m", "vm", "Succeeded", deleted=True))
    assert picture.migrations["m"].at == 1
    assert picture.migrations["m"].phase == "Succeeded"


def test_a_migration_deleted_under_way_is_over() -> None:
    """Nothing more will come of it."""
    picture = Picture()
    picture.take(MigrationSeen(1, "m", "m", "vm", "Starting"))
    assert picture.migrations["m"].moving
    picture.take(MigrationSeen(2, "m", "m", "vm", "Starting", deleted=True))
    assert picture.migrations["m"].over
    assert not picture.migrations["m"].moving


def test_deletions_leave_nothing() -> None:
    """Pods, VMs and nodes go as they came."""
    picture = Picture()
    picture.take(NodeSeen(0, "n1"))
    picture.take(VMSeen(0, "v", "vm"))
    picture.take(PodSeen(1, "p", "pod", "v", "vm", "n1", "Running"))
    assert [pod.name for pod in picture.on("n1")] == ["pod"]
    assert picture.serving("v") is not None
    picture.take(PodSeen(2, "p", "pod", "v", "vm", "n1", "Running", deleted=True))
    picture.take(VMSeen(2, "v", "vm", deleted=True))
    picture.take(NodeSeen(3, "n1", deleted=True))
    assert picture == Picture(_pods_of={"v": {}})
