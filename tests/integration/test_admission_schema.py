"""The CRD alone refuses invalid VMs: the message names field and bound, and nothing is created."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from controller.domain.names import MAX_VM_NAME
from tests.integration.tools import Kubectl, vm_manifest

CPU = "spec.resources.cpu"
MEMORY = "spec.resources.memory"
CPU_BOUND = f'{CPU} must be a plain decimal string from 0 to 1000, such as "0.15"'
MEMORY_BOUND = f'{MEMORY} must be a plain decimal string from 0 to 1, such as "0.20"'
GOOD = {"cpu": "0.10", "memory": "0.15"}

NO_DECIMALS = [
    "abc",
    "-1",
    "NaN",
    "Infinity",
    "1e400",
    "1e3",
    ".5",
    "1.",
    "",
    " 0.1",
    "0.1\n",
    "+0.1",
    "0x1",
    "0,1",
    "१",
]
"""None of these is a plain decimal."""


@pytest.fixture(scope="module", autouse=True)
def _no_refused_vm_exists(kubectl: Kubectl) -> Iterator[None]:
    """Check, once for all tests of this module, that no refused VM exists."""
    yield
    names = kubectl("get", "vm", "-o", "name").split()
    assert not [name for name in names if "/refused-" in name]


@pytest.fixture
def name() -> str:
    """Return a VM name of the test's own."""
    return f"door-{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def stopped_vm(kubectl: Kubectl) -> Iterator[str]:
    """Create a stopped VM, for edits that are all refused."""
    name = f"door-{uuid4().hex[:8]}"
    kubectl.apply_vm(name, running=False)
    yield name
    kubectl("delete", "vm", name, "--wait=false")


def create(kubectl: Kubectl, name: str, spec: Any) -> Any:
    """Create a VM by a dry run; return the API server's reply."""
    manifest = json.dumps(vm_manifest(name, spec))
    return json.loads(kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=manifest))


def refusal(kubectl: Kubectl, spec: Any, name: str | None = None) -> str:
    """Try to create a VM; return the refusal."""
    name = name or f"refused-{uuid4().hex[:8]}"
    return kubectl.refused("create", "-f", "-", stdin=json.dumps(vm_manifest(name, spec)))


@pytest.mark.parametrize("value", NO_DECIMALS)
def test_cpu_that_is_no_plain_decimal_is_refused(kubectl: Kubectl, value: str) -> None:
    """Also notations that float() reads."""
    assert CPU_BOUND in refusal(kubectl, {"resources": {**GOOD, "cpu": value}})


@pytest.mark.parametrize("value", ["abc", "-1", "1e-3", ".5", "", " 0.1"])
def test_memory_that_is_no_plain_decimal_is_refused(kubectl: Kubectl, value: str) -> None:
    """As for CPU."""
    assert MEMORY_BOUND in refusal(kubectl, {"resources": {**GOOD, "memory": value}})


@pytest.mark.parametrize("value", ["1000.1", "1001", "1000.00000000001", "9999999999999999"])
def test_cpu_above_its_bound_is_refused(kubectl: Kubectl, value: str) -> None:
    """The bound is exact, however small the excess."""
    assert CPU_BOUND in refusal(kubectl, {"resources": {**GOOD, "cpu": value}})


@pytest.mark.parametrize("value", ["1.1", "2", "1.00000000000001"])
def test_memory_above_its_bound_is_refused(kubectl: Kubectl, value: str) -> None:
    """The bound is exact, however small the excess."""
    assert MEMORY_BOUND in refusal(kubectl, {"resources": {**GOOD, "memory": value}})


@pytest.mark.parametrize("value", ["0", "0.0", "1000", "1000.0", "00000000000000.1"])
def test_cpu_within_its_bounds_is_accepted(kubectl: Kubectl, name: str, value: str) -> None:
    """Both ends of the range are in it."""
    assert create(kubectl, name, {"resources": {**GOOD, "cpu": value}})["spec"]["resources"]["cpu"] == value


@pytest.mark.parametrize("value", ["0", "0.0", "1", "1.0"])
def test_memory_within_its_bounds_is_accepted(kubectl: Kubectl, name: str, value: str) -> None:
    """Both ends of the range are in it."""
    assert create(kubectl, name, {"resources": {**GOOD, "memory": value}})["spec"]["resources"]["memory"] == value


@pytest.mark.parametrize("field", ["cpu", "memory"])
def test_a_ratio_of_17_characters_is_refused(kubectl: Kubectl, field: str) -> None:
    """The length is bounded before the value is parsed."""
    message = refusal(kubectl, {"resources": {**GOOD, field: "0.123456789012345"}})
    assert f"spec.resources.{field}: Too long: may not be more than 16 bytes" in message


@pytest.mark.parametrize("field", ["cpu", "memory"])
@pytest.mark.parametrize("value", [0.5, 1, True, ["0.5"]], ids=str)
def test_a_ratio_that_is_no_string_is_refused(kubectl: Kubectl, field: str, value: Any) -> None:
    """A JSON number is no string."""
    message = refusal(kubectl, {"resources": {**GOOD, field: value}})
    assert f"spec.resources.{field} in body must be of type string" in message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"resources": {"memory": "0.15"}}, CPU),
        ({"resources": {"cpu": "0.10"}}, MEMORY),
        ({"resources": {"cpu": None, "memory": "0.15"}}, CPU),
        ({"resources": {"cpu": "0.10", "memory": None}}, MEMORY),
        ({"running": True}, "spec.resources"),
        ({"resources": None}, "spec.resources"),
        (None, "spec"),
    ],
    ids=["no-cpu", "no-memory", "null-cpu", "null-memory", "no-resources", "null-resources", "null-spec"],
)
def test_a_missing_field_is_named(kubectl: Kubectl, spec: Any, field: str) -> None:
    """Null counts as missing."""
    assert f"{field}: Required value" in refusal(kubectl, spec)


def test_a_vm_without_spec_is_refused(kubectl: Kubectl) -> None:
    """The spec is required."""
    manifest = vm_manifest("refused-without-spec", {})
    del manifest["spec"]
    assert "spec: Required value" in kubectl.refused("create", "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("value", ["yes", "true", 1], ids=str)
def test_running_must_be_a_boolean(kubectl: Kubectl, value: Any) -> None:
    """YAML's quoted "yes" is a string."""
    assert "spec.running in body must be of type boolean" in refusal(kubectl, {"resources": GOOD, "running": value})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"resources": GOOD, "runing": True}, "spec.runing"),
        ({"resources": {**GOOD, "disk": "0.1"}}, "spec.resources.disk"),
    ],
)
def test_an_unknown_field_is_refused(kubectl: Kubectl, spec: Any, field: str) -> None:
    """kubectl validates strictly, so a misspelt field is not dropped silently."""
    assert f'unknown field "{field}"' in refusal(kubectl, spec)


@pytest.mark.parametrize("length", [44, 64, 253])
def test_a_name_beyond_43_characters_is_refused(kubectl: Kubectl, length: int) -> None:
    """The pod's name must stay a hostname."""
    message = refusal(kubectl, {"resources": GOOD}, name="refused-".ljust(length, "x"))
    assert "metadata.name must be at most 43 characters long" in message


@pytest.mark.parametrize("name", ["refused-a.example", "refused-a.0"])
def test_a_dotted_name_is_refused(kubectl: Kubectl, name: str) -> None:
    """Kubernetes allows dots in an object's name, a hostname does not."""
    message = refusal(kubectl, {"resources": GOOD}, name=name)
    assert "metadata.name must be a DNS label" in message
    assert "no dots" in message


def test_a_generated_name_has_the_same_bound(kubectl: Kubectl) -> None:
    """generateName adds five characters, which count."""
    manifest = vm_manifest("", {"resources": GOOD})
    manifest["metadata"] = {"generateName": "g" * (MAX_VM_NAME - 4)}
    message = kubectl.refused("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    assert "metadata.name must be at most 43 characters long" in message


def test_an_edit_has_the_same_bounds(kubectl: Kubectl, stopped_vm: str) -> None:
    """The VM stays unchanged."""
    patch = json.dumps({"spec": {"resources": {"cpu": "1000.1"}}})
    assert CPU_BOUND in kubectl.refused("patch", "vm", stopped_vm, "--type=merge", "-p", patch)
    assert kubectl.json("get", "vm", stopped_vm)["spec"]["resources"]["cpu"] == "0.10"


@pytest.mark.parametrize(
    "status",
    [{"phase": "Dreaming"}, {"incarnation": -1}, {"incarnation": "0"}, {"conditions": [{"type": "Ready"}]}],
    ids=json.dumps,
)
def test_a_status_outside_the_schema_is_refused(kubectl: Kubectl, stopped_vm: str, status: Any) -> None:
    """The status subresource is validated too."""
    patch = json.dumps({"status": status})
    message = kubectl.refused("patch", "vm", stopped_vm, "--subresource=status", "--type=merge", "-p", patch)
    assert f"status.{next(iter(status))}" in message


def test_a_new_vm_is_pending_without_any_write(kubectl: Kubectl, name: str) -> None:
    """The reply to the create has the default phase, so `vm["status"]["phase"]` never fails."""
    assert create(kubectl, name, {"resources": GOOD})["status"] == {"phase": "Pending", "conditions": []}


def test_running_defaults_to_true(kubectl: Kubectl, name: str) -> None:
    """The default is written into the object."""
    assert create(kubectl, name, {"resources": GOOD})["spec"]["running"] is True


@pytest.mark.usefixtures("controller")
def test_a_vm_with_a_name_of_43_characters_runs(kubectl: Kubectl, name: str) -> None:
    """Its pod name has 63 characters, the limit of a hostname."""
    longest = name.ljust(MAX_VM_NAME, "x")
    kubectl.apply_vm(longest)
    try:
        vm = kubectl.wait_phase(longest, "Running")
        assert len(vm["status"]["podName"]) == 63
        assert kubectl("get", "pod", vm["status"]["podName"], "-o", "name")
    finally:
        kubectl("delete", "vm", longest, "--wait=false")
