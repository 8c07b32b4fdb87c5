"""A malformed field costs only that field, and a malformed object affects no other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectOnly


def decoded(body: dict[str, Any], kind: type[Any] = Pod) -> Any:
    """Return the object that a body decodes to."""
    return codec.decode_object(json.dumps(body).encode(), kind)


def body(**parts: Any) -> dict[str, Any]:
    """Return an object's body."""
    return {"metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7"}} | parts


def test_a_valid_object_has_no_unreadable_fields() -> None:
    """It equals the result of the strict decoder."""
    assert decoded(body(spec={"nodeName": "n"})) == codec.decode(json.dumps(body(spec={"nodeName": "n"})).encode(), Pod)
    assert decoded(body()).unreadable == ()


@pytest.mark.parametrize("malformed", [7, None, "x", [], True, 1.5])
def test_a_field_of_another_type_has_its_default(malformed: object) -> None:
    """The other fields have their values."""
    pod = decoded(body(spec=malformed, status={"phase": "Running"}))

    assert (pod.metadata.name, pod.spec, pod.status.phase) == ("a", Pod(pod.metadata).spec, "Running")
    assert [found.partition(":")[0] for found in pod.unreadable] == ["spec"]


def test_a_malformed_nested_field_costs_only_itself() -> None:
    """Malformed elements of a list are left out."""
    conditions = [{"type": "Ready", "status": 7}, {"status": "True"}, 7, {"type": "PodScheduled", "status": "True"}]
    pod = decoded(body(spec={"nodeName": "n"}, status={"phase": 3, "conditions": conditions}))

    known = [(found.type, found.status) for found in pod.status.conditions]
    assert known == [("Ready", "Unknown"), ("PodScheduled", "True")]
    assert (pod.spec.node_name, pod.status.phase) == ("n", "Pending")
    assert len(pod.unreadable) == 4


def test_a_malformed_entry_of_a_map_is_left_out() -> None:
    """A number in place of a label's value."""
    item = decoded(body(spec={"vmName": "a", "addedNodeSelector": {"x": 1, "y": "z"}}), VirtualMachineMigration)

    assert item.spec.added_node_selector == {"y": "z"}
    assert item.unreadable == ("spec.addedNodeSelector.x: Expected `str`, got `int`",)


@pytest.mark.parametrize("malformed", ["no", 0, None, [], {}])
def test_a_vm_whose_running_is_no_boolean_has_a_problem_in_its_spec(malformed: object) -> None:
    """The default in its place is not what the user asked for."""
    resources = {"cpu": "0.1", "memory": "0.1"}
    vm = decoded(body(spec={"running": malformed, "resources": resources}), VirtualMachine)

    assert vm.spec.resources.cpu == "0.1"
    assert vm.spec_problem is not None
    assert vm.spec_problem.startswith("spec.running: Expected `bool`")


def test_a_malformed_status_is_no_problem_of_the_spec() -> None:
    """The controller derives the status."""
    vm = decoded(body(status={"phase": 7, "incarnation": "3", "migration": [1]}), VirtualMachine)

    assert (vm.spec_problem, vm.status.phase, vm.status.incarnation, vm.status.migration) == (
        None,
        "Pending",
        None,
        None,
    )


def test_a_migration_keeps_its_valid_fields() -> None:
    """And names its malformed ones."""
    item = decoded(body(spec={"vmName": "vm-1", "targetNode": {"name": "n"}, "cancel": "yes"}), VirtualMachineMigration)

    assert (item.spec.vm_name, item.spec.target_node, item.spec.cancel) == ("vm-1", None, False)
    assert item.spec_problem is not None


@pytest.mark.parametrize(
    "metadata",
    [None, 7, [], {}, {"name": 7}, {"name": ""}, {"name": "a", "uid": 7}, {"name": "a", "labels": {"x": 1}}],
    ids=json.dumps,
)
def test_metadata_is_all_or_nothing(metadata: object) -> None:
    """With a part missing it could be another object's. A Status, which has no metadata, is no object."""
    with pytest.raises(errors.MalformedReplyError):
        decoded({"metadata": metadata, "status": "Failure"})


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b'{"metadata": {"name": "a"}', b"[" * 10_000, b'{"metadata":' * 10_000]
)
@pytest.mark.parametrize("kind", [Pod, ObjectOnly])
def test_invalid_json_is_malformed(text: bytes, kind: type[Any]) -> None:
    """JSON that is nested too deeply, too."""
    with pytest.raises(errors.MalformedReplyError):
        codec.decode_object(text, kind)
    assert codec.identity(text) == ("", "", "")


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        ({"name": "a", "namespace": "x", "uid": "u", "labels": 7}, ("x", "a", "u")),
        ({"name": 7, "namespace": "x", "uid": "u"}, ("x", "", "u")),
        ({"name": "a"}, ("", "a", "")),
        (None, ("", "", "")),
        ([], ("", "", "")),
    ],
)
def test_the_identity_is_decoded_as_far_as_possible(metadata: object, known: tuple[str, str, str]) -> None:
    """The store removes a deleted object by it."""
    assert codec.identity(msgspec.json.encode({"metadata": metadata})) == known
