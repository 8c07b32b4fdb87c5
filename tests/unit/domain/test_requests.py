"""What pods ask of their node, case by case as the scheduler counts it."""

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


def says(name: str, *, given: str | None = None, admitted: str | None = None) -> dict[str, Any]:
    """Write the status of a container whose CPU is being resized."""
    status: dict[str, Any] = {"name": name}
    status |= {"resources": {"requests": amounts(given)}} if given is not None else {}
    return status | ({"allocatedResources": amounts(admitted)} if admitted is not None else {})


def has(spec: dict[str, Any], status: dict[str, Any] | None = None) -> tuple[Decimal, Decimal]:
    """Return the cores and bytes of a pod."""
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
            id="a mixed row",
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
            id="pod level of something else",
        ),
        pytest.param(
            {"resources": {"limits": amounts("5")}, "containers": [one("a", "1")]}, "1", 0, id="limits ask for nothing"
        ),
    ],
)
def test_requests_are_counted_as_the_scheduler_counts_them(
    spec: dict[str, Any], cores: str, gibibytes: Decimal | int
) -> None:
    """Of a pod that no node has admitted yet."""
    assert has(spec) == (Decimal(cores), gibibytes * GI)


@pytest.mark.parametrize(
    ("status", "cores"),
    [
        pytest.param({}, "2", id="no word of it"),
        pytest.param({"containerStatuses": [{"name": "a"}]}, "2", id="a status without resources"),
        pytest.param({"containerStatuses": [says("a", given="5", admitted="2")]}, "5", id="shrinks: still has more"),
        pytest.param({"containerStatuses": [says("a", given="1", admitted="2")]}, "2", id="grows: admitted"),
        pytest.param({"containerStatuses": [says("a", given="1", admitted="1")]}, "2", id="grows: only wanted"),
        pytest.param({"containerStatuses": [says("a", given="1", admitted="3")]}, "3", id="the largest of the three"),
        pytest.param({"containerStatuses": [says("a", admitted="4")]}, "4", id="given what was admitted"),
        pytest.param({"containerStatuses": [says("b", given="9", admitted="9")]}, "2", id="another container's"),
        pytest.param(
            {**INFEASIBLE, "containerStatuses": [says("a", given="1", admitted="1")]}, "1", id="never to be granted"
        ),
        pytest.param(
            {**INFEASIBLE, "containerStatuses": [says("a", given="3", admitted="1")]},
            "3",
            id="never, and still has more",
        ),
        pytest.param(INFEASIBLE, "0", id="never, and nothing was given"),
        pytest.param(
            {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Deferred"}],
                "containerStatuses": [says("a", given="1", admitted="1")],
            },
            "2",
            id="later",
        ),
        pytest.param(
            {"allocatedResources": amounts("7"), "resources": {"requests": amounts("6")}}, "7", id="the pod's own sums"
        ),
        pytest.param({"allocatedResources": amounts("7")}, "2", id="half of the pod's own sums"),
    ],
)
def test_a_resize_counts_as_the_largest_of_what_is_wanted_admitted_and_given(
    status: dict[str, Any], cores: str
) -> None:
    """The spec says 2."""
    assert has({"containers": [one("a", "2")]}, status)[0] == Decimal(cores)


def test_the_largest_of_sums_counts_and_not_the_sum_of_the_largest() -> None:
    """One container grows while another shrinks."""
    spec = {"containers": [one("a", "1"), one("b", "3")]}
    status = {"containerStatuses": [says("a", given="3", admitted="3"), says("b", given="1", admitted="1")]}
    assert has(spec, status)[0] == 4


def test_a_sidecar_that_is_resized_counts_with_what_it_has() -> None:
    """Its status stands among those of the init containers."""
    spec = {"initContainers": [one("s", "1", sidecar=True)], "containers": [one("a", "1")]}
    assert has(spec, {"initContainerStatuses": [says("s", given="4", admitted="4")]})[0] == 5


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
def test_a_resize_of_a_pod_as_a_whole_counts_likewise(status: dict[str, Any], cores: str, gibibytes: int) -> None:
    """The spec says 5 cores."""
    asked = has({"resources": {"requests": amounts("5")}, "containers": [{"name": "a"}]}, status)
    assert asked == (Decimal(cores), Decimal(gibibytes * GI))


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"containers": [one("a", "many")]}, {}),
        ({"containers": [one("a"), {"name": "b", "resources": {"requests": {"memory": 5}}}]}, {}),
        ({"containers": [], "initContainers": [one("a", "many")]}, {}),
        ({"containers": [], "overhead": amounts("many")}, {}),
        ({"containers": [], "resources": {"requests": amounts("many")}}, {}),
        ({"containers": [one("a", "1")]}, {"containerStatuses": [says("a", given="many")]}),
        ({"containers": [one("a", "1")]}, {"containerStatuses": [says("a", admitted="many")]}),
    ],
)
def test_a_pod_with_an_unreadable_quantity_is_not_one_that_asks_for_nothing(
    spec: dict[str, Any], status: dict[str, Any]
) -> None:
    """Wherever it stands."""
    with pytest.raises(QuantityError, match="is no quantity"):
        has(spec, status)


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, True),
        ({}, {"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({}, {"containerStatuses": [{"name": "a", "ready": True}]}, False),
        ({"nodeName": "n"}, {}, False),
        ({}, {"containerStatuses": [says("a", given="1")]}, False),
        ({}, {"resources": {"requests": amounts("1")}}, False),
        ({}, {"allocatedResources": amounts("1")}, False),
        ({}, INFEASIBLE, False),
    ],
)
def test_two_states_of_a_pod_are_the_same_only_if_nothing_that_counts_changed(
    spec: dict[str, Any], status: dict[str, Any], *, expected: bool
) -> None:
    """What cannot change the sum is passed over."""
    assert requests.same(pod({}, {}), pod(spec, status)) is expected
