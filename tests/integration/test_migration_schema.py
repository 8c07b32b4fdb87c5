"""The VirtualMachineMigration resource without a controller, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.tools import Kubectl
from tests.plane import install

pytestmark = pytest.mark.timeout(60)  # the first test starts a control plane

FULL = {
    "vmName": "vm-1",
    "targetNode": "kwok-node-1",
    "addedNodeSelector": {"zone": "a"},
    "priority": "user-triggered",
    "reason": "maintenance",
    "unschedulableTimeoutSeconds": 60,
    "completionTimeoutSeconds": 120,
    "recordOf": "8f2b1c1e-0d0c-4b8e-9d0e-3f4f5a6b7c8d",
}
"""A migration that says everything it can, but for cancel."""

CHANGED = {
    "vmName": "vm-2",
    "targetNode": "kwok-node-2",
    "addedNodeSelector": {"zone": "b"},
    "priority": "system-critical",
    "reason": "boredom",
    "unschedulableTimeoutSeconds": 61,
    "completionTimeoutSeconds": 121,
    "recordOf": "00000000-0d0c-4b8e-9d0e-3f4f5a6b7c8d",
}
"""For every field another value that would be fine in a new migration."""

OPTIONAL = sorted(CHANGED.keys() - {"vmName"})


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Return kubectl for an API server of this module's own, where only the tests write statuses."""
    with ControlPlane(tmp_path_factory.mktemp("schema") / "state", nodes=0) as plane:
        own = Kubectl(plane.kubectl, plane.kubeconfig)
        install(plane)
        yield own


@pytest.fixture(scope="module")
def full(kubectl: Kubectl) -> str:
    """Create a migration with every field set, for edits that are all refused."""
    return str(create(kubectl, FULL)["metadata"]["name"])


@pytest.fixture(scope="module")
def bare(kubectl: Kubectl) -> str:
    """Create a migration that only names its VM, for edits that are all refused."""
    return str(create(kubectl, {"vmName": "vm-1"})["metadata"]["name"])


@pytest.fixture(scope="module")
def moved(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Create three migrations in a namespace of their own: one waits, one succeeded, one failed."""
    namespace = "moved"
    kubectl("create", "namespace", namespace)
    for name, vm, status in (
        ("waits", "vm-a", {"phase": "Pending", "message": "no node has room"}),
        ("went", "vm-a", {"phase": "Succeeded", "sourceNode": "n1", "targetNode": "n2", "downtimeSeconds": "1.234"}),
        ("broke", "vm-b", {"phase": "Failed", "sourceNode": "n1", "failureReason": "RolledBack", "message": "full"}),
    ):
        document = manifest({"vmName": vm, "reason": "drill"}, name=name, namespace=namespace)
        kubectl("create", "-f", "-", stdin=json.dumps(document))
        patch = json.dumps({"status": status})
        kubectl("patch", "vmm", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    yield kubectl
    kubectl("delete", "namespace", namespace, "--wait=false")


def manifest(spec: Any, **metadata: Any) -> dict[str, Any]:
    """Return a migration as a dict."""
    return {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachineMigration",
        "metadata": {"namespace": "default", **metadata},
        "spec": spec,
    }


def create(kubectl: Kubectl, spec: Any) -> Any:
    """Create a migration; return the API server's reply."""
    document = json.dumps(manifest(spec, name=f"schema-{uuid4().hex[:8]}"))
    return json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=document))


def refusal(kubectl: Kubectl, spec: Any) -> str:
    """Try to create a migration; return the refusal."""
    return kubectl.refused("create", "-f", "-", stdin=json.dumps(manifest(spec, name="refused")))


def patch(kubectl: Kubectl, name: str, spec: Any) -> str:
    """Patch a migration's spec for real; return the refusal."""
    return kubectl.refused("patch", "vmm", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def lines(text: str) -> list[list[str]]:
    """Return kubectl's output, split into words."""
    return [line.split() for line in text.splitlines()]


# --- how it is called and shown ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vmm", "vmms", "virtualmachinemigration", "virtualmachinemigrations"])
def test_each_name_of_the_resource_lists_migrations(moved: Kubectl, name: str) -> None:
    """Short names and long ones."""
    assert "/waits\n" in moved("get", name, "-n", "moved", "-o", "name")


def test_kubectl_get_all_shows_migrations(moved: Kubectl) -> None:
    """They have the category `all`."""
    assert "virtualmachinemigration.simulation.node-classifier.io/went" in moved("get", "all", "-n", "moved")


def test_a_row_shows_source_target_reason_and_downtime(moved: Kubectl) -> None:
    """The columns in this order."""
    header, row = lines(moved("get", "vmm", "went", "-n", "moved"))
    assert header == ["NAME", "PHASE", "VM", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE"]
    assert row[:-1] == ["went", "Succeeded", "vm-a", "n1", "n2", "drill", "1.234"]


def test_a_wide_row_adds_the_failure(moved: Kubectl) -> None:
    """The reason in one word, then the message."""
    text = moved("get", "vmm", "broke", "-n", "moved", "-o", "wide")
    header, row = lines(text)
    assert header == ["NAME", "PHASE", "VM", "SOURCE", "TARGET", "REASON", "DOWNTIME", "FAILURE", "MESSAGE", "AGE"]
    assert row[:-1] == ["broke", "Failed", "vm-b", "n1", "drill", "RolledBack", "full"]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("spec.vmName=vm-a", {"waits", "went"}),
        ("status.phase=Failed", {"broke"}),
        ("status.phase!=Failed", {"waits", "went"}),
        ("spec.vmName=vm-a,status.phase=Succeeded", {"went"}),
    ],
)
def test_a_field_selector_selects_migrations(moved: Kubectl, selector: str, names: set[str]) -> None:
    """On the API server."""
    found = moved("get", "vmm", "-n", "moved", "-o", "name", "--field-selector", selector).split()
    assert {name.partition("/")[2] for name in found} == names


@pytest.mark.parametrize(
    "path", ["vmm", "vmm.spec", "vmm.status", "vmm.status.conditions", "vmm.status.phaseTransitionTimestamps"]
)
def test_kubectl_explain_has_a_description_of_every_field(kubectl: Kubectl, path: str) -> None:
    """Of every level."""
    text = kubectl("explain", path)
    assert "FIELDS:" in text
    assert "<no description>" not in text


@pytest.mark.parametrize(
    "path",
    [
        *(f"vmm.spec.{field}" for field in (*CHANGED, "cancel")),
        "vmm.status.phase",
        "vmm.status.downtimeSeconds",
        "vmm.status.failureReason",
    ],
)
def test_kubectl_explain_knows_the_field(kubectl: Kubectl, path: str) -> None:
    """Every field of the spec, by its name."""
    assert "DESCRIPTION:" in kubectl("explain", path)


# --- defaults ------------------------------------------------------------------------------------------------


def test_a_new_migration_is_pending_without_any_write(kubectl: Kubectl) -> None:
    """The reply to the create has the phase, so `status["phase"]` never fails."""
    assert create(kubectl, {"vmName": "vm-1"})["status"] == {"phase": "Pending", "conditions": []}


def test_defaults_are_written_into_the_spec(kubectl: Kubectl) -> None:
    """And no other field."""
    assert create(kubectl, {"vmName": "vm-1"})["spec"] == {
        "vmName": "vm-1",
        "unschedulableTimeoutSeconds": 300,
        "completionTimeoutSeconds": 900,
        "cancel": False,
    }


def test_given_fields_are_kept(kubectl: Kubectl, full: str) -> None:
    """No default overrides them."""
    assert kubectl.json("get", "vmm", full)["spec"] == {**FULL, "cancel": False}


# --- immutability --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", CHANGED)
def test_a_field_cannot_be_changed_and_the_message_names_it(kubectl: Kubectl, full: str, field: str) -> None:
    """The spec is immutable but for `cancel`."""
    message = patch(kubectl, full, {field: CHANGED[field]})
    assert f"spec.{field}" in message
    assert "immutable" in message


@pytest.mark.parametrize("field", OPTIONAL)
def test_a_field_cannot_be_removed(kubectl: Kubectl, full: str, field: str) -> None:
    """That would be a change, too."""
    message = patch(kubectl, full, {field: None})
    assert f"spec.{field}" in message
    assert "immutable" in message


@pytest.mark.parametrize("field", OPTIONAL)
def test_a_field_cannot_be_added(kubectl: Kubectl, bare: str, field: str) -> None:
    """A field left to the controller stays so."""
    message = patch(kubectl, bare, {field: CHANGED[field]})
    assert f"spec.{field}" in message
    assert "immutable" in message


def test_labels_of_a_migration_can_be_changed(kubectl: Kubectl, full: str) -> None:
    """Only the spec is immutable."""
    assert "labeled" in kubectl("label", "vmm", full, "who=me")


def test_a_status_can_be_written_to_the_largest_migration(kubectl: Kubectl) -> None:
    """The rules stay within the API server's cost limit, however large the spec."""
    selector = {f"{'k' * 240}.example/{n:063d}": "v" * 63 for n in range(16)}
    largest = {**FULL, "targetNode": "n" * 63, "reason": "r" * 128, "addedNodeSelector": selector}
    name = create(kubectl, largest)["metadata"]["name"]
    status = json.dumps({"status": {"phase": "Starting"}})
    kubectl("patch", "vmm", name, "--subresource=status", "--type=merge", "-p", status)
    kubectl("patch", "vmm", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')


# --- cancelling ----------------------------------------------------------------------------------------------


def test_cancel_can_be_set(kubectl: Kubectl) -> None:
    """It is the only mutable field."""
    name = create(kubectl, FULL)["metadata"]["name"]
    kubectl("patch", "vmm", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert kubectl.json("get", "vmm", name)["spec"] == {**FULL, "cancel": True}


@pytest.mark.parametrize("value", [False, None], ids=["false", "null"])
def test_cancel_cannot_be_unset(kubectl: Kubectl, value: bool | None) -> None:  # noqa: FBT001
    """The controller may have acted on it; null means false, by the default."""
    name = create(kubectl, {**FULL, "cancel": True})["metadata"]["name"]
    assert "spec.cancel cannot be taken back; create another migration" in patch(kubectl, name, {"cancel": value})


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", ["urgent", "", "System-Critical"])
def test_an_unknown_priority_is_refused(kubectl: Kubectl, priority: str) -> None:
    """The message lists the known ones."""
    message = refusal(kubectl, {"vmName": "vm-1", "priority": priority})
    assert "spec.priority: Unsupported value" in message
    assert 'supported values: "system-critical", "user-triggered", "system-maintenance"' in message


@pytest.mark.parametrize("field", ["unschedulableTimeoutSeconds", "completionTimeoutSeconds"])
@pytest.mark.parametrize(
    ("value", "bound"),
    [(0, "greater than or equal to 1"), (-5, "greater than or equal to 1"), (86401, "less than or equal to 86400")],
)
def test_a_timeout_outside_its_bounds_is_refused(kubectl: Kubectl, field: str, value: int, bound: str) -> None:
    """From a second to a day."""
    message = refusal(kubectl, {"vmName": "vm-1", field: value})
    assert f"spec.{field} in body should be {bound}" in message


@pytest.mark.parametrize("field", ["unschedulableTimeoutSeconds", "completionTimeoutSeconds"])
@pytest.mark.parametrize("value", ["300", True], ids=str)
def test_a_timeout_that_is_no_integer_is_refused(kubectl: Kubectl, field: str, value: Any) -> None:
    """Fractions of a second are not supported."""
    message = refusal(kubectl, {"vmName": "vm-1", field: value})
    assert f"spec.{field} in body must be of type int" in message


@pytest.mark.parametrize("field", ["unschedulableTimeoutSeconds", "completionTimeoutSeconds"])
@pytest.mark.parametrize("value", [1, 86400])
def test_a_timeout_within_its_bounds_is_accepted(kubectl: Kubectl, field: str, value: int) -> None:
    """Both ends of the range are in it."""
    assert create(kubectl, {"vmName": "vm-1", field: value})["spec"][field] == value


@pytest.mark.parametrize("spec", [{}, {"vmName": None}, {"targetNode": "kwok-node-1"}], ids=json.dumps)
def test_a_migration_of_no_vm_is_refused(kubectl: Kubectl, spec: Any) -> None:
    """Null counts as missing."""
    assert "spec.vmName: Required value" in refusal(kubectl, spec)


@pytest.mark.parametrize("name", ["", "VM-1", "a.b", "-a", "a-", "a b", "a/b", "a\n"])
def test_an_invalid_vm_name_is_refused(kubectl: Kubectl, name: str) -> None:
    """At the create, not by a migration that fails."""
    message = refusal(kubectl, {"vmName": name})
    assert "spec.vmName must be a VM's name: a DNS label of 1 to 43 characters" in message


def test_a_vm_name_beyond_43_characters_is_refused(kubectl: Kubectl) -> None:
    """No VM has such a name."""
    assert "spec.vmName: Too long: may not be more than 43 bytes" in refusal(kubectl, {"vmName": "x" * 44})


@pytest.mark.parametrize("node", ["", "Node-1", "-n", "n_1", "a b", "a/b"])
def test_an_invalid_node_name_is_refused(kubectl: Kubectl, node: str) -> None:
    """Node names are DNS subdomains."""
    message = refusal(kubectl, {"vmName": "vm-1", "targetNode": node})
    assert "spec.targetNode must be a node's name: a DNS subdomain of 1 to 253 characters" in message


@pytest.mark.parametrize("node", ["n", "ip-10-0-0-1.eu-central-1.compute.internal"])
def test_a_node_name_may_have_dots(kubectl: Kubectl, node: str) -> None:
    """Clouds use such names."""
    assert create(kubectl, {"vmName": "vm-1", "targetNode": node})["spec"]["targetNode"] == node


def test_a_node_name_beyond_253_characters_is_refused(kubectl: Kubectl) -> None:
    """No node has such a name."""
    message = refusal(kubectl, {"vmName": "vm-1", "targetNode": "x" * 254})
    assert "spec.targetNode: Too long: may not be more than 253 bytes" in message


def test_a_reason_beyond_128_characters_is_refused(kubectl: Kubectl) -> None:
    """It is shown in a column."""
    message = refusal(kubectl, {"vmName": "vm-1", "reason": "x" * 129})
    assert "spec.reason: Too long: may not be more than 128 bytes" in message


@pytest.mark.parametrize(
    "selector", [{"zone": "a b"}, {"zone": "-a"}, {"a b": "a"}, {"": "a"}, {"a/b/c": "a"}], ids=json.dumps
)
def test_a_selector_that_no_label_can_match_is_refused(kubectl: Kubectl, selector: dict[str, str]) -> None:
    """The API server would refuse the target pod, after the source was deleted."""
    message = refusal(kubectl, {"vmName": "vm-1", "addedNodeSelector": selector})
    assert "spec.addedNodeSelector must hold labels: " in message


def test_a_selector_may_have_prefixes_and_empty_values(kubectl: Kubectl) -> None:
    """As labels may."""
    selector = {"topology.kubernetes.io/zone": "eu-1a", "node-role.kubernetes.io/worker": "", "A_b.c": "D.e_f"}
    spec = create(kubectl, {"vmName": "vm-1", "addedNodeSelector": selector})["spec"]
    assert spec["addedNodeSelector"] == selector


def test_a_selector_of_17_labels_is_refused(kubectl: Kubectl) -> None:
    """The cost of its rules is bounded."""
    selector = {f"k{n}": "v" for n in range(17)}
    message = refusal(kubectl, {"vmName": "vm-1", "addedNodeSelector": selector})
    assert "spec.addedNodeSelector: Too many: 17: must have at most 16 items" in message


@pytest.mark.parametrize("field", ["vmname", "target", "node"])
def test_an_unknown_field_is_refused(kubectl: Kubectl, field: str) -> None:
    """kubectl validates strictly, so a misspelt field is not dropped silently."""
    assert f'unknown field "spec.{field}"' in refusal(kubectl, {"vmName": "vm-1", field: "x"})


def test_a_migration_without_spec_is_refused(kubectl: Kubectl) -> None:
    """The spec is required."""
    document = manifest({}, name="refused")
    del document["spec"]
    assert "spec: Required value" in kubectl.refused("create", "-f", "-", stdin=json.dumps(document))


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Flying"},
        {"conditions": [{"type": "Completed"}]},
        {"phaseTransitionTimestamps": [{"phase": "Failed"}]},
    ],
    ids=json.dumps,
)
def test_a_status_outside_the_schema_is_refused(kubectl: Kubectl, bare: str, status: Any) -> None:
    """The status subresource is validated too."""
    body = json.dumps({"status": status})
    message = kubectl.refused("patch", "vmm", bare, "--subresource=status", "--type=merge", "-p", body)
    assert f"status.{next(iter(status))}" in message
