"""Bodies decode into values, or raise."""

from __future__ import annotations

import json

import pytest

from controller.domain.objects import VirtualMachine
from controller.kube import codec, errors
from controller.kube.kinds import Pod
from tests.unit.kube.builders import pod_body


def listing(**parts: object) -> bytes:
    """Return a list's body."""
    return json.dumps({"metadata": {"resourceVersion": "7"}} | parts).encode()


def test_a_list_decodes_into_its_metadata_and_items() -> None:
    """Unknown fields are dropped."""
    meta, items, _ = codec.decode_list(
        listing(metadata={"resourceVersion": "7", "continue": "t", "remainingItemCount": 3}, items=[pod_body("a")]), Pod
    )

    assert (meta.resource_version, meta.continue_, [item.metadata.name for item in items]) == ("7", "t", ["a"])


@pytest.mark.parametrize("body", [listing(), listing(items=None), listing(items=[])], ids=["absent", "null", "empty"])
def test_a_list_without_items_is_empty(body: bytes) -> None:
    """Go writes an empty slice as null."""
    assert codec.decode_list(body, Pod)[1] == []


@pytest.mark.parametrize(
    "body",
    [listing(metadata={}), listing(metadata={"resourceVersion": ""}), b'{"items": []}', b"{}", b"[]", b"", b"null"],
    ids=["no version", "empty version", "no metadata", "nothing", "an array", "empty", "null"],
)
def test_a_list_without_a_version_is_malformed(body: bytes) -> None:
    """It must not be taken for an empty cluster."""
    with pytest.raises(errors.MalformedReplyError):
        codec.decode_list(body, Pod)


@pytest.mark.parametrize("item", [7, None, {}, {"metadata": None}, {"metadata": {"name": 7}}])
def test_an_item_that_is_no_object_is_left_out_and_the_others_stay(item: object) -> None:
    """One malformed object does not hide the others."""
    _, items, left_out = codec.decode_list(listing(items=[pod_body("a"), item, pod_body("b")]), Pod)

    assert [pod.metadata.name for pod in items] == ["a", "b"]
    assert left_out == 1


def test_a_malformed_value_in_a_vm_s_spec_decodes() -> None:
    """It is validated later, for that VM alone."""
    body = {"metadata": {"name": "a"}, "spec": {"resources": {"cpu": 0.5, "memory": ["x"]}}}

    vm = codec.decode(json.dumps(body).encode(), VirtualMachine)

    assert (vm.spec.resources.cpu, vm.spec.resources.memory) == (0.5, ["x"])


def test_a_malformed_reply_quotes_its_start() -> None:
    """Eighty bytes of it, so that a log line stays one."""
    with pytest.raises(errors.MalformedReplyError) as caught:
        codec.decode(b"<html>" + b"x" * 1000, Pod)

    assert "<html>xxx" in str(caught.value)
    assert "Pod" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_encoding_keeps_explicit_nulls() -> None:
    """In a merge patch a null deletes."""
    assert json.loads(codec.encode({"a": None, "b": {"c": []}})) == {"a": None, "b": {"c": []}}


def test_a_status_is_decoded() -> None:
    """Code, reason and message."""
    status = codec.decode_status(
        b'{"kind": "Status", "code": 409, "reason": "Conflict", "message": "no", "details": {}}'
    )

    assert (status.code, status.reason, status.message) == (409, "Conflict", "no")


def test_a_long_page_is_quoted_in_part() -> None:
    """As many as 120 bytes of it."""
    assert codec.decode_status(b"<html>" * 1000).message == "<html>" * 20
