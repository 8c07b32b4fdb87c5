"""The load of pods, and the usage of nodes."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest

from controller.domain import names, usage
from controller.domain.capacity import Amount
from controller.domain.ratio import ReferenceNode
from controller.domain.usage import IDLE, Load, Usage
from controller.kube.kinds import Container, ContainerResources, Node, NodeStatus, Pod, PodSpec, Requests
from controller.kube.meta import ObjectMeta
from tests.unit.domain.builders import pod, running, vm

REFERENCE = ReferenceNode.of(cpu="32", memory="256Gi")


def node(cpu: str = "32", memory: str = "256Gi") -> Node:
    """Return a node of a size."""
    return Node(metadata=ObjectMeta(name="n"), status=NodeStatus(allocatable={"cpu": cpu, "memory": memory}))


def load_of(subject: Pod) -> Load:
    """Return the load of a pod that has a node."""
    found = usage.of(subject)
    assert found is not None
    return found[1]


def annotated(subject: Pod, **values: str | None) -> Pod:
    """Change annotations of a pod: `cpu_consumption`, `requested_cpu`; None removes one."""
    annotations = subject.metadata.annotations | {
        f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in values.items() if value is not None
    }
    for key, value in values.items():
        if value is None:
            del annotations[f"{names.GROUP}/{key.replace('_', '-')}"]
    metadata = msgspec.structs.replace(subject.metadata, annotations=annotations)
    return msgspec.structs.replace(subject, metadata=metadata)


def test_the_load_of_a_running_pod_is_its_usage_and_its_requests() -> None:
    """The usage is the annotation's; the requests are the container's."""
    machine = vm(cpu="0.5", memory="0.25", annotations={names.CPU_CONSUMPTION: "0.75"})
    assert usage.of(running(machine)) == (
        "kwok-node-1",
        Load(1, Decimal("0.75"), Decimal("0.25"), Amount(Decimal(16), Decimal(64 * 2**30), 1)),
    )


def test_a_pod_that_has_a_node_but_does_not_run_yet_has_requests_only() -> None:
    """It uses nothing, and no running VM is counted."""
    part = usage.of(pod(vm(cpu="0.5", memory="0.25"), node="n"))
    assert part == ("n", Load(0, Decimal(0), Decimal(0), Amount(Decimal(16), Decimal(64 * 2**30), 1)))


def test_a_terminating_pod_that_runs_still_counts() -> None:
    """Until it is deleted."""
    assert load_of(pod(vm(), phase="Running", node="n", terminating=True)).running == 1


@pytest.mark.parametrize(
    "nothing",
    [None, pod(vm()), pod(vm(), phase="Failed", node="n"), pod(vm(), phase="Succeeded", node="n")],
    ids=["no pod", "no node", "failed", "succeeded"],
)
def test_a_pod_without_a_node_or_at_its_end_has_no_load(nothing: Pod | None) -> None:
    """Its annotations do not matter."""
    assert usage.of(nothing) is None


@pytest.mark.parametrize("malformed", [None, "", "NaN", "-1", "1e3", "a lot"])
def test_a_malformed_annotation_counts_as_the_requested_ratio(malformed: str | None) -> None:
    """Until the controller has corrected it."""
    assert load_of(annotated(running(vm(cpu="0.5")), cpu_consumption=malformed)).cpu == Decimal("0.5")


def test_a_pod_whose_annotations_are_all_malformed_uses_nothing() -> None:
    """The sum stays a number."""
    assert load_of(annotated(running(vm(memory="0.5")), memory_consumption="x", requested_memory="y")).memory == 0


def test_usage_is_relative_to_the_nodes_own_allocatable() -> None:
    """Half of the reference node is the whole of a node of half its size."""
    load = load_of(running(vm(cpu="0.5", memory="0.25", annotations={names.CPU_CONSUMPTION: "0.25"})))

    assert usage.usage(node(), load, REFERENCE) == Usage(1, 0.25, 0.25, 0.5, 0.25)
    assert usage.usage(node("16", "128Gi"), load, REFERENCE) == Usage(1, 0.5, 0.5, 1.0, 0.5)


def test_usage_of_an_overcommitted_node_is_above_one() -> None:
    """It is not capped."""
    load = IDLE
    for _ in range(3):
        load += load_of(running(vm(cpu="0.5")))
    assert usage.usage(node(), load, REFERENCE).cpu == 1.5


@pytest.mark.parametrize("size", ["0", "nonsense", 5, None])
@pytest.mark.parametrize("machines", [0, 1])
def test_usage_of_a_node_without_allocatable_is_one(size: Any, machines: int) -> None:
    """At 0 it would look like the emptiest node; its VMs are still counted."""
    load = load_of(running(vm())) if machines else IDLE
    subject = node() if size is None else node(size, size)
    if size is None:
        subject = msgspec.structs.replace(subject, status=NodeStatus())
    assert usage.usage(subject, load, REFERENCE) == Usage(machines, 1.0, 1.0, 1.0, 1.0)


def test_a_malformed_quantity_of_one_resource_does_not_affect_another() -> None:
    """Half of the memory is in use, whatever the CPU is."""
    load = load_of(running(vm(memory="0.5")))
    assert usage.usage(node("nonsense"), load, REFERENCE).memory == 0.5
    assert usage.usage(node("nonsense", "256e9"), load, REFERENCE).memory == 0.5 * 256 * 2**30 / 256e9


def test_malformed_requests_are_left_out_of_the_sum() -> None:
    """The pod is counted, and subtracted with its load."""
    malformed = msgspec.structs.replace(
        running(vm()),
        spec=PodSpec(
            node_name="n", containers=(Container(resources=ContainerResources(requests=Requests(cpu="many"))),)
        ),
    )
    load = IDLE + load_of(malformed)
    assert load.requested == Amount(pods=1)
    assert load.held == Amount(pods=1, unknown=True)
    assert load - load_of(malformed) == IDLE


@pytest.mark.timeout(90)
def test_a_million_additions_and_subtractions_leave_exactly_zero() -> None:
    """Ratios of 14 decimals, in random order."""
    rng = Random(7)  # noqa: S311 - no secret
    parts = [
        Load(1, Decimal(f"0.{rng.randrange(10**14):014}"), Decimal(rng.randrange(10**9)).scaleb(-9), Amount(pods=1))
        for _ in range(1000)
    ]
    load = IDLE
    there: list[Load] = []
    for _ in range(1_000_000):
        if there and rng.random() < 0.5:
            last = rng.randrange(len(there))
            there[last], there[-1] = there[-1], there[last]
            load -= there.pop()
        else:
            part = parts[rng.randrange(1000)]
            there.append(part)
            load += part
    assert load.cpu == sum((part.cpu for part in there), Decimal(0))
    for part in there:
        load -= part
    assert load == IDLE
