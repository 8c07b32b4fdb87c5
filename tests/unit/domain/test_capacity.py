"""On which nodes a VM fits, ever and now."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.domain.objects import VMSpec
from controller.domain.vm import launcher
from controller.domain.vm.placement import Placement, requirements
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import (
    Container,
    ContainerResources,
    Node,
    NodeSpec,
    NodeStatus,
    Pod,
    PodSpec,
    PodStatus,
    Requests,
    Taint,
)
from controller.kube.meta import ObjectMeta
from controller.kube.scheduling import Toleration
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
    """A pod of any owner."""
    containers = tuple(Container(resources=ContainerResources(requests=request)) for request in requests)
    return Pod(
        metadata=ObjectMeta(name="any"),
        spec=PodSpec(node_name=on, containers=containers),
        status=PodStatus(phase=phase),
    )


def test_a_pod_of_any_owner_counts_with_the_requests_of_its_containers() -> None:
    """One without requests still counts as a pod."""
    subject = pod(Requests(cpu="500m", memory="1Gi"), Requests(cpu="1"))
    assert capacity.holding(subject) == ("node-1", Amount(Decimal("1.5"), Decimal(2**30), 1))
    assert capacity.holding(pod(Requests())) == ("node-1", Amount(pods=1))


def test_a_pod_that_has_ended_or_has_no_node_counts_nowhere() -> None:
    """Neither takes capacity."""
    assert capacity.holding(pod(Requests(cpu="9"), phase="Failed")) is None
    assert capacity.holding(pod(on=None)) is None


def test_a_vm_needs_what_its_pod_requests() -> None:
    """Ratios of the reference node, and one pod."""
    assert capacity.of_vm(launcher.requested(vm(cpu="0.5", memory="0.25")), POLICY) == Amount(
        Decimal(16), Decimal(64 * 2**30), 1
    )


@pytest.mark.parametrize(
    "free", [Amount(Decimal(0), Decimal(9), 9), Amount(Decimal(9), Decimal(0), 9), Amount(Decimal(9), Decimal(9), 0)]
)
def test_an_amount_fits_only_if_cpu_memory_and_pods_fit(free: Amount) -> None:
    """Each of the three is a bound."""
    assert not Amount(Decimal(1), Decimal(1), 1).fits(free)
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
        (node(), Placement(selector=(("disk", "fast"),)), False),
        (node(labels={"type": "kwok", "disk": "fast"}), Placement(selector=(("disk", "fast"),)), True),
        (node(taints=(FAKE, Taint(key="maintenance", effect="NoExecute"))), Placement(), False),
        (node(taints=(FAKE, Taint(key="soft", effect="PreferNoSchedule"))), Placement(), True),
    ],
)
def test_a_node_is_eligible_by_cordon_selector_taints_and_placement(
    candidate: Node, placement: Placement, *, expected: bool
) -> None:
    """As the scheduler decides it."""
    assert (capacity.obstacle(candidate, requirements(VMSpec(), POLICY), placement) is None) is expected


def test_a_toleration_with_a_value_tolerates_that_value_only() -> None:
    """As the scheduler matches them."""
    policy = LauncherPolicy(reference=POLICY.reference, tolerations=(Toleration("kwok.x-k8s.io/node", value="real"),))
    assert capacity.obstacle(node(), requirements(VMSpec(), policy), Placement()) is capacity.Obstacle.TAINT


def test_a_vm_needs_its_pods_rounded_requests_not_its_exact_share() -> None:
    """0.33333 of 32 cores are 10.66656; the pod requests 10666m, and runs on a node of as much."""
    needed = capacity.of_vm(launcher.requested(vm(cpu="0.33333", memory="0")), POLICY)
    assert needed.cpu == Decimal("10.666")
    assert needed.fits(capacity.allocatable(sized(cpu="10666m", memory="1Gi", pods="1")))


def test_a_pod_that_requests_none_of_a_resource_fits_where_it_is_overcommitted() -> None:
    """The scheduler checks requested resources only."""
    overcommitted = Amount(Decimal(-1), Decimal(-1), 1)
    assert Amount(pods=1).fits(overcommitted)
    assert not Amount(Decimal("0.001"), pods=1).fits(overcommitted)


def sized(**allocatable: object) -> Node:
    """A node with this allocatable."""
    return Node(metadata=ObjectMeta(name="node-1"), status=NodeStatus(allocatable=dict(allocatable)))


@pytest.mark.parametrize(
    ("text", "cores"), [("256e9", 256 * 10**9), ("1E3", 1000), ("12E", 12 * 10**18), ("1500001u", Decimal("1.501"))]
)
def test_allocatable_is_parsed_in_every_form_and_counted_in_millicores(text: str, cores: Decimal) -> None:
    """Finer digits are rounded up, as by the scheduler."""
    assert capacity.allocatable(sized(cpu=text)).cpu == min(Decimal(cores), Decimal(2**63 - 1))


def test_a_node_without_allocatable_has_no_capacity() -> None:
    """The scheduler puts nothing there."""
    assert capacity.allocatable(sized()) == Amount()


@pytest.mark.parametrize("size", [{"cpu": "many"}, {"memory": 5}, {"pods": "some", "cpu": "1"}, {"cpu": ["1"]}])
def test_any_amount_may_fit_on_a_node_whose_allocatable_is_malformed(size: dict[str, object]) -> None:
    """Unknown is neither empty nor full: the scheduler decides."""
    whole = capacity.allocatable(sized(**size))
    assert whole.unknown
    assert Amount(Decimal(9), Decimal(9), 9).fits(whole)
    assert Amount(Decimal(9), Decimal(9), 9).fits(whole - Amount(Decimal(9), Decimal(9), 9))
    assert len(list(capacity.unreadable(sized(**size)))) == 1


def test_the_readable_part_of_a_malformed_allocatable_is_parsed() -> None:
    """For the metrics."""
    assert capacity.allocatable(sized(cpu="many", memory="256e9", pods="110")) == Amount(
        Decimal(0), Decimal(256 * 10**9), 110, unknown=True
    )


def test_any_amount_may_fit_beside_a_pod_whose_requests_are_malformed() -> None:
    """The pod is reported, with the malformed quantity."""
    reported: list[tuple[str, str]] = []
    found = capacity.holding(pod(Requests(cpu="many")), lambda bad, why: reported.append((bad.metadata.name, why)))
    assert found is not None
    assert Amount(Decimal(9), Decimal(9), 1).fits(capacity.allocatable(node()) - found[1])
    [(name, why)] = reported
    assert name == "any"
    assert "'many' is no quantity" in why


def test_a_pod_counts_on_its_nominated_node() -> None:
    """The scheduler preempts other pods for it."""
    nominated = msgspec.structs.replace(
        pod(Requests(cpu="2"), on=None), status=PodStatus(phase="Pending", nominated_node_name="node-1")
    )
    assert capacity.holding(nominated) == ("node-1", Amount(Decimal(2), Decimal(0), 1))


def test_fine_and_absurd_requests_are_counted_in_the_schedulers_units() -> None:
    """Millicores and bytes, rounded up once a pod, and capped at the scheduler's largest number."""
    assert capacity.of_pod(pod(Requests(cpu="400u", memory="0.4"), Requests(cpu="400u", memory="0.4"))) == Amount(
        Decimal("0.001"), Decimal(1), 1
    )
    assert capacity.of_pod(pod(Requests(cpu="1e999"))).cpu == 2**63 - 1
