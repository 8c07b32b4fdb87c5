"""Verdicts on hand-written histories: downtime, moves, loads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.observe import judge
from controller.observe.history import ClusterState, NodeSeen, PodSeen, Seen, VMSeen

VM = "uid-of-vm"
NODES = (NodeSeen(0, "n1"), NodeSeen(0, "n2"))


def pod(at: float, name: str, node: str | None = "n1", phase: str = "Running", *, vm: str = VM) -> PodSeen:
    """A pod of a VM, as an event shows it."""
    return PodSeen(at, f"uid-of-{name}", name, vm, "vm", node, phase)


def terminating(at: float, name: str, node: str = "n1") -> PodSeen:
    """A pod whose deletion has begun."""
    return replace(pod(at, name, node), terminating=True)


def deleted(at: float, name: str, node: str = "n1") -> PodSeen:
    """A deleted pod."""
    return replace(terminating(at, name, node), deleted=True)


MIGRATION: tuple[Seen, ...] = (
    *NODES,
    pod(1, "a", None, "Pending"),
    pod(1.5, "a", "n1", "Pending"),
    pod(2, "a"),
    terminating(10, "a"),
    deleted(11, "a"),
    pod(12, "b", None, "Pending"),
    pod(13, "b", "n2", "Pending"),
    pod(14.5, "b", "n2"),
)
"""A VM that starts and is moved as it should be."""


def picture_of(events: tuple[Seen, ...]) -> ClusterState:
    """The state after some events."""
    picture = ClusterState()
    for event in events:
        picture.apply(event)
    return picture


def test_downtime_lasts_from_the_sources_end_to_the_targets_start() -> None:
    """It starts with the deletion timestamp, not with the deletion; a VM's first start is no downtime."""
    assert judge.outages(MIGRATION) == [judge.Outage("vm", VM, "n1", 10, 14.5)]


def test_downtime_starts_when_the_node_is_deleted() -> None:
    """The status of the pod is Running still."""
    history = (*NODES, pod(1, "a"), NodeSeen(5, "n1", deleted=True), terminating(6, "a"), deleted(6, "a"))
    assert judge.outages(history) == [judge.Outage("vm", VM, "n1", 5, None)]
    assert judge.outages((*history, pod(8, "b", "n2"))) == [judge.Outage("vm", VM, "n1", 5, 8)]


def test_an_outage_that_goes_on_lasts_until_the_end_of_the_observation() -> None:
    """An open outage counts, too."""
    (outage,) = judge.outages(MIGRATION[:-1])
    assert outage.ended is None
    assert outage.seconds(30) == 20


def test_a_deleted_vm_is_not_down() -> None:
    """The pod was deleted with its VM."""
    history = (*NODES, pod(1, "a"), terminating(2, "a"), VMSeen(2, VM, "vm", deleted=True), deleted(3, "a"))
    assert judge.outages(history) == []


def test_concurrent_outages_are_counted_at_their_maximum() -> None:
    """In all and by source node; outages that only touch are not concurrent."""
    down = [
        judge.Outage("a", "a", "n1", 1, 4),
        judge.Outage("b", "b", "n1", 2, 3),
        judge.Outage("c", "c", "n2", 2.5, None),
        judge.Outage("d", "d", "n1", 4, 5),
    ]
    assert judge.most_at_once(down) == 3
    assert judge.most_at_once_of_a_node(down) == 2
    assert judge.most_at_once([]) == judge.most_at_once_of_a_node([]) == 0


def test_moves_are_counted_when_the_node_changes() -> None:
    """From a time on; a restart on the same node is none."""
    assert judge.moves(MIGRATION) == 1
    assert judge.moves(MIGRATION, since=15) == 0
    assert judge.moves((*NODES, pod(1, "a"), deleted(2, "a"), pod(3, "b"))) == 0


def test_loads_follow_every_change() -> None:
    """The number of live pods by node and time; a terminating pod counts."""
    assert judge.loads(MIGRATION) == {
        "n1": [(0, 0), (1.5, 1), (11, 0)],
        "n2": [(0, 0), (13, 1)],
    }


def test_a_deleted_node_has_no_load() -> None:
    """Even while pods name it; it does not count in the spread."""
    history = (*NODES, pod(1, "a"), NodeSeen(5, "n1", deleted=True))
    assert judge.loads(history)["n1"] == [(0, 0), (1, 1), (5, 0)]
    assert judge.spread(history, 4) == (0, 1)
    assert judge.spread(history, 5) == (0, 0)


def test_a_vm_that_does_not_run_is_reported_with_its_pods() -> None:
    """A VM that runs in its only pod is not."""
    assert judge.not_running(picture_of(MIGRATION), {VM: "vm"}) == []
    assert judge.not_running(picture_of(MIGRATION[:-1]), {VM: "vm"}) == ["VM vm does not run: b Pending on n2"]
    assert judge.not_running(picture_of(MIGRATION[:7]), {VM: "vm"}) == ["VM vm does not run: no pod"]


def test_a_vm_does_not_run_in_a_terminating_or_second_pod_or_on_a_deleted_node() -> None:
    """The phase Running is not enough."""
    cases: dict[str, tuple[Seen, ...]] = {
        "a Running and terminating on n1": (pod(1, "a"), terminating(2, "a")),
        "a Running on n1 (which no longer exists)": (pod(1, "a"), NodeSeen(2, "n1", deleted=True)),
        "a Running on n1, b Running on n2": (pod(1, "a"), pod(2, "b", "n2")),
    }
    for words, events in cases.items():
        assert judge.not_running(picture_of((*NODES, *events)), {VM: "vm"}) == [f"VM vm does not run: {words}"]


def test_a_created_and_an_ending_pod_is_reported() -> None:
    """From a time on."""
    assert judge.touched(MIGRATION, since=3) == ["at 10.000 s VM vm lost pod a", "at 12.000 s VM vm got pod b"]
    assert judge.touched((*MIGRATION, pod(20, "b", "n2")), since=15) == []


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (1.0, 20.0)])
def test_percentiles_are_values_that_were_measured(share: float, value: float) -> None:
    """Nearest rank, for few measurements."""
    assert judge.percentile([float(number) for number in range(20, 0, -1)], share) == value
