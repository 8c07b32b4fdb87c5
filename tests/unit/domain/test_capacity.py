"""Which nodes could hold a VM, and which have room."""

from __future__ import annotations

from decimal import Decimal

import pytest

from controller.domain import capacity, launcher
from controller.domain.capacity import Amount
from controller.domain.launcher import LauncherPolicy, Placement, Toleration
from controller.domain.objects import (
    Container,
    ContainerResources,
    Node,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    Requests,
    Taint,
)
from tests.unit.domain.builders import POLICY, vm

FAKE = Taint(key="kwok.x-k8s.io/node", value="fake", effect="NoSchedule")


def node(*, taints: tuple[Taint, ...] = (FAKE,), cordoned: bool = False, labels: dict[str, str] | None = None) -> Node:
    """A fake node of 32 CPUs."""
    return Node(
        metadata=ObjectMeta(name="node-1", labels=labels if labels is not None else {"type": "kwok"}),
        spec=NodeSpec(unschedulable=cordoned, taints=taints),
        status=NodeStatus(allocatable={"cpu": "32", "memory": "256Gi", "pods": "110"}),
    )


def pod(*requests: Requests, phase: str = "Running", on: str | None = "node-1") -> Pod:
    """Anybody's pod."""
    containers = tuple(Container(resources=ContainerResources(requests=request)) for request in requests)
    return Pod(
        metadata=ObjectMeta(name="any"),
        spec=PodSpec(node_name=on, containers=containers),
        status=PodStatus(phase=phase),
    )


def test_what_pods_hold_is_summed_by_node_whoever_they_are() -> None:
    """Ended pods and pods without a node hold nothing; a pod without requests still counts as one."""
    used = capacity.used_by_node(
        [
            pod(Requests(cpu="500m", memory="1Gi"), Requests(cpu="1")),
            pod(Requests()),
            pod(Requests(cpu="9"), phase="Failed"),
            pod(on=None),
        ]
    )
    assert used == {"node-1": Amount(Decimal("1.5"), Decimal(2**30), 2)}


def test_a_vm_needs_what_its_pod_requests() -> None:
    """Ratios of the reference node, and one pod."""
    assert capacity.of_vm(launcher.requested(vm(cpu="0.5", memory="0.25")), POLICY) == Amount(
        Decimal(16), Decimal(64 * 2**30), 1
    )


@pytest.mark.parametrize(
    "room", [Amount(Decimal(0), Decimal(9), 9), Amount(Decimal(9), Decimal(0), 9), Amount(Decimal(9), Decimal(9), 0)]
)
def test_a_vm_fits_only_if_everything_fits(room: Amount) -> None:
    """CPU, memory and the number of pods."""
    assert not Amount(Decimal(1), Decimal(1), 1).fits(room)
    assert Amount(Decimal(1), Decimal(1), 1).fits(Amount(Decimal(1), Decimal(1), 1))


@pytest.mark.parametrize(
    ("candidate", "placement", "expected"),
    [
        (node(), Placement(), True),
        (node(cordoned=True), Placement(), False),
        (node(labels={}), Placement(), False),
        (node(), Placement(avoid="node-1"), False),
        (node(), Placement(avoid="node-2"), True),
        (node(), Placement(node="node-2"), False),
        (node(), Placement(node="node-1"), True),
        (node(), Placement(selector={"disk": "fast"}), False),
        (node(labels={"type": "kwok", "disk": "fast"}), Placement(selector={"disk": "fast"}), True),
        (node(taints=(FAKE, Taint(key="maintenance", effect="NoExecute"))), Placement(), False),
        (node(taints=(FAKE, Taint(key="soft", effect="PreferNoSchedule"))), Placement(), True),
    ],
)
def test_a_node_is_eligible_as_the_scheduler_sees_it(candidate: Node, placement: Placement, *, expected: bool) -> None:
    """Cordon, selector, taints, and what the migration asks for."""
    assert capacity.eligible(candidate, POLICY, placement) is expected


def test_a_toleration_with_a_value_tolerates_that_value_only() -> None:
    """As the scheduler matches them."""
    policy = LauncherPolicy(reference=POLICY.reference, tolerations=(Toleration("kwok.x-k8s.io/node", "real"),))
    assert not capacity.eligible(node(), policy, Placement())


def test_a_node_whose_quantities_cannot_be_read_holds_nothing() -> None:
    """Nothing is moved there on a guess."""
    odd = Node(metadata=ObjectMeta(name="odd"), status=NodeStatus(allocatable={"cpu": "many"}))
    assert capacity.allocatable(odd) == Amount()
