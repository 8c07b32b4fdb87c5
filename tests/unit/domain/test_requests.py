"""Requests of pods, as the scheduler counts them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from controller.domain import requests
from controller.kube.kinds import Pod
from controller.kube.quantity import QuantityError

GI = 2**30
INFEASIBLE = {"conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]}


def pod(spec: dict[str, Any], status: dict[str, Any] | None = None) -> Pod:
    """Read a pod as the API server writes it."""
    return msgspec.convert({"metadata": {"name": "any"}, "spec": spec, "status": status or {}}, Pod)


def one(name: str, cpu: str | None = None, memory: str | None = None, *, sidecar: bool = False) -> dict[str, Any]:
    """Write a container."""
    container: dict[str, Any] = {"name": name, "resources": {"requests": amounts(cpu, memory)}}
    return container | ({"restartPolicy": "Always"} if sidecar else {})


def amounts(cpu: str | None = None, memory: str | None = None) -> dict[str, str]:
    """Write a resource list."""
    return {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value is not None}


def resizing(name: str, *, actual: str | None = None, allocated: str | None = None) -> dict[str, Any]:
    """Write the status of a container whose CPU is being resized."""
    status: dict[str, Any] = {"name": name}
    status |= {"resources": {"requests": amounts(actual)}} if actual is not None else {}
    return status | ({"allocatedResources": amounts(allocated)} if allocated is not None else {})


def requested(spec: dict[str, Any], status: dict[str, Any] | None = None) -> tuple[Decimal, Decimal]:
    """Return the cores and bytes that a pod requests."""
    return requests.of_pod(pod(spec, status))


@pytest.mark.parametrize(
    ("spec", "cores", "gibibytes"),
    [
        pytest.param({"containers": []}, "0", 0, id="nothing"),
        pytest.param({"containers": [{"name": "c"}]}, "0", 0, id="no requests"),
        pytest.param({"containers": [one("a", "1", "2Gi"), one("b", "500m")]}, "1.5", 2, id="a sum"),
        pytest.param({"containers": [one("a", "129e-3", "3e9")]}, "0.129", Decimal(3 * 10**9) / GI, id="exponents"),
        pytest.param(
            {"containers": [one("a", "1", "1Gi")], "overhead": amounts("250m", "1Gi")}, "1.25", 2, id="overhead"
        ),
        pytest.param(
            {"initContainers": [one("i", "4", "1Gi")], "containers": [one("a", "1", "2Gi")]}, "4", 2, id="a large init"
        ),
        pytest.param(
            {"initContainers": [one("i", "1"), one("j", "3")], "containers": [one("a", "1"), one("b", "1")]},
            "3",
            0,
            id="init containers run one after the other",
        ),
        pytest.param(
            {"initContainers": [one("s", "20", sidecar=True)], "containers": [one("a", "100m")]},
            "20.1",
            0,
            id="a sidecar stays",
        ),
        pytest.param(
            {
                "initContainers": [one("s", "1", sidecar=True), one("t", "2", sidecar=True)],
                "containers": [one("a", "3")],
            },
            "6",
            0,
            id="sidecars add up",
        ),
        pytest.param(
            {"initContainers": [one("s", "2", sidecar=True), one("i", "10")], "containers": [one("a", "3")]},
            "12",
            0,
            id="an init container runs beside the sidecars before it",
        ),
        pytest.param(
            {"initContainers": [one("i", "10"), one("s", "2", sidecar=True)], "containers": [one("a", "3")]},
            "10",
            0,
            id="but not beside those after it",
        ),
        pytest.param(
            {
                "initContainers": [
                    one("i", "5"),
                    one("s", "1", sidecar=True),
                    one("j", "7"),
                    one("t", "3", sidecar=True),
                ],
                "containers": [one("a", "2")],
            },
            "8",
            0,
            id="init containers and sidecars mixed",
        ),
        pytest.param(
            {"initContainers": [one("i", "10")], "containers": [one("a", "1")], "overhead": amounts("2")},
            "12",
            0,
            id="overhead on top of the peak",
        ),
        pytest.param(
            {"resources": {"requests": amounts("5")}, "containers": [one("a", "1", "1Gi")]}, "5", 1, id="pod level CPU"
        ),
        pytest.param(
            {
                "resources": {"requests": amounts("1", "1Gi")},
                "initContainers": [one("i", "9", "9Gi")],
                "containers": [],
            },
            "1",
            1,
            id="pod level instead of any container",
        ),
        pytest.param(
            {"resources": {"requests": amounts("5")}, "containers": [], "overhead": amounts("1")},
            "6",
            0,
            id="pod level and overhead",
        ),
        pytest.param(
            {"resources": {"requests": {"hugepages-2Mi": "1Gi"}}, "containers": [one("a", "1")]},
            "1",
            0,
            id="pod level of another resource",
        ),
        pytest.param(
            {"resources": {"limits": amounts("5")}, "containers": [one("a", "1")]}, "1", 0, id="limits are no requests"
        ),
    ],
)
def test_requests_of_a_pod_without_a_resize_are_the_schedulers_sums(
    spec: dict[str, Any], cores: str, gibibytes: Decimal | int
) -> None:
    """No status is reported yet."""
    assert requested(spec) == (Decimal(cores), gibibytes * GI)


@pytest.mark.parametrize(
    ("status", "cores"),
    [
        pytest.param({}, "2", id="no status"),
        pytest.param({"containerStatuses": [{"name": "a"}]}, "2", id="a status without resources"),
        pytest.param(
            {"containerStatuses": [resizing("a", actual="5", allocated="2")]}, "5", id="shrinks: the actual is larger"
        ),
        pytest.param({"containerStatuses": [resizing("a", actual="1", allocated="2")]}, "2", id="grows: allocated"),
        pytest.param({"containerStatuses": [resizing("a", actual="1", allocated="1")]}, "2", id="grows: only desired"),
        pytest.param(
            {"containerStatuses": [resizing("a", actual="1", allocated="3")]}, "3", id="the largest of the three"
        ),
        pytest.param({"containerStatuses": [resizing("a", allocated="4")]}, "4", id="no actual"),
        pytest.param({"containerStatuses": [resizing("b", actual="9", allocated="9")]}, "2", id="another container's"),
        pytest.param(
            {**INFEASIBLE, "containerStatuses": [resizing("a", actual="1", allocated="1")]}, "1", id="infeasible"
        ),
        pytest.param(
            {**INFEASIBLE, "containerStatuses": [resizing("a", actual="3", allocated="1")]},
            "3",
            id="infeasible, the actual is larger",
        ),
        pytest.param(INFEASIBLE, "0", id="infeasible, nothing reported"),
        pytest.param(
            {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Deferred"}],
                "containerStatuses": [resizing("a", actual="1", allocated="1")],
            },
            "2",
            id="deferred",
        ),
        pytest.param(
            {"allocatedResources": amounts("7"), "resources": {"requests": amounts("6")}}, "7", id="sums of the pod"
        ),
        pytest.param({"allocatedResources": amounts("7")}, "2", id="one of the two sums of the pod"),
    ],
)
def test_during_a_resize_the_largest_of_desired_allocated_and_actual_counts(status: dict[str, Any], cores: str) -> None:
    """The spec's request is 2."""
    assert requested({"containers": [one("a", "2")]}, status)[0] == Decimal(cores)


def test_the_largest_of_sums_counts_and_not_the_sum_of_the_largest() -> None:
    """One container grows while another shrinks."""
    spec = {"containers": [one("a", "1"), one("b", "3")]}
    status = {"containerStatuses": [resizing("a", actual="3", allocated="3"), resizing("b", actual="1", allocated="1")]}
    assert requested(spec, status)[0] == 4


def test_a_sidecar_that_is_resized_counts_with_its_actual_resources() -> None:
    """Its status is among those of the init containers."""
    spec = {"initContainers": [one("s", "1", sidecar=True)], "containers": [one("a", "1")]}
    assert requested(spec, {"initContainerStatuses": [resizing("s", actual="4", allocated="4")]})[0] == 5


@pytest.mark.parametrize(
    ("status", "cores", "gibibytes"),
    [
        ({"resources": {"requests": amounts("9", "1Gi")}, "allocatedResources": amounts("3")}, "9", 1),
        ({"resources": {"requests": amounts("3")}, "allocatedResources": amounts("8")}, "8", 0),
        ({"resources": {"requests": amounts("3")}}, "5", 0),
        ({"resources": {"requests": amounts("3")}, **INFEASIBLE}, "3", 0),
        ({"allocatedResources": amounts("8")}, "5", 0),
    ],
)
def test_a_resize_at_pod_level_counts_likewise(status: dict[str, Any], cores: str, gibibytes: int) -> None:
    """The spec's request is 5 cores."""
    found = requested({"resources": {"requests": amounts("5")}, "containers": [{"name": "a"}]}, status)
    assert found == (Decimal(cores), Decimal(gibibytes * GI))


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"containers": [one("a", "many")]}, {}),
        ({"containers": [one("a"), {"name": "b", "resources": {"requests": {"memory": 5}}}]}, {}),
        ({"containers": [], "initContainers": [one("a", "many")]}, {}),
        ({"containers": [], "overhead": amounts("many")}, {}),
        ({"containers": [], "resources": {"requests": amounts("many")}}, {}),
        ({"containers": [one("a", "1")]}, {"containerStatuses": [resizing("a", actual="many")]}),
        ({"containers": [one("a", "1")]}, {"containerStatuses": [resizing("a", allocated="many")]}),
    ],
)
def test_a_malformed_quantity_raises(spec: dict[str, Any], status: dict[str, Any]) -> None:
    """In any field that counts."""
    with pytest.raises(QuantityError, match="is no quantity"):
        requested(spec, status)


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, True),
        ({}, {"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({}, {"containerStatuses": [{"name": "a", "ready": True}]}, False),
        ({"nodeName": "n"}, {}, False),
        ({}, {"containerStatuses": [resizing("a", actual="1")]}, False),
        ({}, {"resources": {"requests": amounts("1")}}, False),
        ({}, {"allocatedResources": amounts("1")}, False),
        ({}, INFEASIBLE, False),
    ],
)
def test_two_states_of_a_pod_are_the_same_only_if_no_field_that_counts_changed(
    spec: dict[str, Any], status: dict[str, Any], *, expected: bool
) -> None:
    """Other fields are ignored."""
    assert requests.same(pod({}, {}), pod(spec, status)) is expected
