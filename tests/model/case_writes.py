"""The behaviour of creates and patches, the same for the model and for a real API server."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

import pytest

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.meta import ObjectOnly
from controller.kube.resources import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
)
from tests.model.place import ANOTHER, FAILED, HOLD, Case, Place, version, vm

VM_DOCUMENTS: Final[Resource[dict[str, Any]]] = Resource(names.GROUP, names.VERSION, names.VM_PLURAL, dict)
NAMESPACES: Final = Resource("", "v1", "namespaces", ObjectOnly)


async def a_create_returns_the_object_with_its_identity(at: Place) -> None:
    """Its status is Pending in place of the body's."""
    made = await at.create(VIRTUAL_MACHINES, {**vm(), "status": {"phase": "Running"}})
    metadata = made.metadata
    assert (metadata.name, metadata.namespace, metadata.generation) == ("a", at.namespace, 1)
    assert metadata.uid
    assert metadata.creation_timestamp is not None
    assert metadata.deletion_timestamp is None
    assert made.status.phase == "Pending"
    assert (await at.pod()).status.phase == "Pending"
    assert await at.get(VIRTUAL_MACHINES) == made


async def a_name_is_unique_within_a_resource(at: Place) -> None:
    """Another resource may have it, too."""
    await at.vm()
    with pytest.raises(errors.AlreadyExistsError):
        await at.vm()
    await at.pod()


async def an_object_created_again_has_another_uid(at: Place) -> None:
    """And a later version."""
    first = await at.vm()
    await at.delete(VIRTUAL_MACHINES, first.metadata)
    second = await at.vm()
    assert second.metadata.uid != first.metadata.uid
    assert version(second) > version(first)


async def a_generated_name_ends_in_five_random_characters(at: Place) -> None:
    """It differs each time."""
    found = [(await at.vm("", generateName="moves-")).metadata.name for _ in range(3)]
    assert all(re.fullmatch(r"moves-[a-z0-9]{5}", name) for name in found), found
    assert len(set(found)) == 3


async def a_create_in_a_missing_namespace_is_not_found(at: Place) -> None:
    """The error names the namespace."""
    with pytest.raises(errors.NotFoundError, match="nowhere"):
        await at.api.create(VIRTUAL_MACHINES, vm(), namespace="nowhere", server_deadline=10.0)


async def an_object_has_the_namespace_of_its_request(at: Place) -> None:
    """Its metadata need not name it, but may name no other."""
    await at.vm("a", namespace="")
    await at.vm("b", namespace=at.namespace)
    with pytest.raises(errors.InvalidError, match="namespace"):
        await at.vm("c", namespace="kube-system")


async def apply_removes_fields_that_it_no_longer_has(at: Place) -> None:
    """Fields of other managers stay; applying the same again changes nothing."""
    name = f"applied-{at.namespace}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"a": "1", "b": "2"}}}
    made = await at.api.apply(NAMESPACES, name, body)
    try:
        await at.api.merge_patch(NAMESPACES, name, {"metadata": {"labels": {"c": "3"}}})
        before = await at.api.apply(NAMESPACES, name, body)
        assert before.metadata.uid == made.metadata.uid
        assert version(await at.api.apply(NAMESPACES, name, body)) == version(before)
        changed = {**body, "metadata": {"name": name, "labels": {"a": "4"}}}
        labels = (await at.api.apply(NAMESPACES, name, changed)).metadata.labels
        assert {key: labels.get(key) for key in "abc"} == {"a": "4", "b": None, "c": "3"}
    finally:
        await at.api.delete(NAMESPACES, name, uid=made.metadata.uid)


async def a_review_is_answered_and_not_stored(at: Place) -> None:
    """So it needs no name, and may be created again."""
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "unknown"}}
    attributes = {"user": "unknown", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    access = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": attributes}
    for _ in range(2):
        assert not (await at.api.create(TOKEN_REVIEWS, token, server_deadline=10.0)).status.authenticated
        assert not (await at.api.create(SUBJECT_ACCESS_REVIEWS, access, server_deadline=10.0)).status.allowed


async def a_field_that_the_crd_does_not_have_is_dropped(at: Place) -> None:
    """Unless the create is strict, which a dry run may be, too."""
    body = {**vm(), "spec": {**vm()["spec"], "noSuchField": 1}}
    for dry_run in (True, False):
        with pytest.raises(errors.InvalidError, match=r'unknown field "spec\.noSuchField"'):
            await at.create(VIRTUAL_MACHINES, body, dry_run=dry_run, strict=True)
    await at.create(VIRTUAL_MACHINES, body)
    assert "noSuchField" not in (await at.api.get(VM_DOCUMENTS, "a", namespace=at.namespace))["spec"]


async def a_dry_run_stores_nothing(at: Place) -> None:
    """It returns the object that a create would return."""
    returned = await at.create(VIRTUAL_MACHINES, vm(), dry_run=True)
    assert (returned.metadata.name, returned.metadata.namespace, returned.status.phase) == (
        "a",
        at.namespace,
        "Pending",
    )
    assert not await at.exists(VIRTUAL_MACHINES)
    await at.vm()
    with pytest.raises(errors.AlreadyExistsError):
        await at.create(VIRTUAL_MACHINES, vm(), dry_run=True)


async def a_new_node_has_the_not_ready_taint(at: Place) -> None:
    """Until another client removes it."""
    made = await at.node()
    try:
        assert "node.kubernetes.io/not-ready" in [taint.key for taint in made.spec.taints]
        assert made.metadata.namespace == ""
    finally:
        await at.api.delete(NODES, made.metadata.name, uid=made.metadata.uid)


async def every_change_has_a_later_version(at: Place) -> None:
    """Across all objects."""
    found = [
        version(await at.vm()),
        version(await at.pod()),
        version(await at.patch(VIRTUAL_MACHINES, {"spec": {"running": True}})),
        version(await at.patch(VIRTUAL_MACHINES, {"status": {"phase": "Stopped"}}, subresource="status")),
        version(await at.patch(PODS, {"metadata": {"labels": {"a": "b"}}})),
    ]
    assert all(earlier < later for earlier, later in pairwise(found)), found
    assert version(await at.get(VIRTUAL_MACHINES)) == found[3]


async def a_patch_that_changes_nothing_writes_nothing(at: Place) -> None:
    """The version stays. A real server may record a new field manager once, so each write is made twice here."""
    await at.vm(labels={"a": "b"})
    spec = {"metadata": {"labels": {"a": "b", "none": None}}, "spec": {"running": True}}
    status = {"status": {"phase": "Stopped"}}
    await at.patch(VIRTUAL_MACHINES, spec)
    newest = await at.patch(VIRTUAL_MACHINES, status, subresource="status")
    assert await at.patch(VIRTUAL_MACHINES, spec) == newest
    assert await at.patch(VIRTUAL_MACHINES, status, subresource="status") == newest
    assert await at.patch(VIRTUAL_MACHINES, {"status": {"phase": "Failed"}}) == newest


async def a_merge_patch_sets_and_removes_fields(at: Place) -> None:
    """Field by field; a list is replaced as a whole, and null removes a field."""
    await at.vm(labels={"a": "1", "b": "2"})
    changed = await at.patch(
        VIRTUAL_MACHINES,
        {
            "metadata": {"labels": {"a": None, "c": "3"}, "annotations": {"d": "4"}},
            "spec": {"resources": {"cpu": "0.2"}},
        },
    )
    assert changed.metadata.labels == {"b": "2", "c": "3"}
    assert changed.metadata.annotations == {"d": "4"}
    assert (changed.spec.resources.cpu, changed.spec.resources.memory) == ("0.2", "0.1")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-15T10:00:00Z"} for kind in ("A", "B")]
    complete = [{**condition, "reason": "R", "message": ""} for condition in conditions]
    await at.patch(VIRTUAL_MACHINES, {"status": {"nodeName": "n", "conditions": complete}}, subresource="status")
    body = {"status": {"nodeName": None, "conditions": complete[1:]}}
    stripped = await at.patch(VIRTUAL_MACHINES, body, subresource="status")
    assert stripped.status.node_name is None
    assert [condition.type for condition in stripped.status.conditions] == ["B"]


async def the_status_subresource_is_written_separately(at: Place) -> None:
    """Each write ignores the part of the other."""
    await at.vm()
    both = {"metadata": {"labels": {"a": "b"}}, "spec": {"running": True}, "status": {"phase": "Failed"}}
    main = await at.patch(VIRTUAL_MACHINES, both)
    assert (main.metadata.labels, main.spec.running, main.status.phase) == ({"a": "b"}, True, "Pending")
    other = {"metadata": {"labels": {"c": "d"}}, "spec": {"running": False}, "status": {"phase": "Failed"}}
    status = await at.patch(VIRTUAL_MACHINES, other, subresource="status")
    assert (status.metadata.labels, status.spec.running, status.status.phase) == ({"a": "b"}, True, "Failed")


async def only_a_new_spec_or_a_deletion_increments_the_generation(at: Place) -> None:
    """Writes of labels or status do not."""
    await at.vm(finalizers=[HOLD])
    labels = await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"a": "b"}}})
    status = await at.patch(VIRTUAL_MACHINES, {"status": {"phase": "Failed"}}, subresource="status")
    spec = await at.patch(VIRTUAL_MACHINES, {"spec": {"running": True}})
    await at.delete(VIRTUAL_MACHINES, spec.metadata)
    terminating = await at.get(VIRTUAL_MACHINES)
    assert [item.metadata.generation for item in (labels, status, spec, terminating)] == [1, 1, 2, 3]
    await at.release(VIRTUAL_MACHINES)


async def a_patch_with_an_older_version_is_a_conflict(at: Place) -> None:
    """It changes nothing."""
    made = await at.vm()
    newer = await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"a": "b"}}})
    guard = {"uid": made.metadata.uid, "resourceVersion": made.metadata.resource_version}
    for old in (guard, {"resourceVersion": made.metadata.resource_version}, {**guard, "uid": ANOTHER}):
        with pytest.raises(errors.ConflictError):
            await at.patch(VIRTUAL_MACHINES, {"metadata": old, "spec": {"running": True}})
        with pytest.raises(errors.ConflictError):
            await at.patch(VIRTUAL_MACHINES, {"metadata": old, **FAILED}, subresource="status")
    assert await at.get(VIRTUAL_MACHINES) == newer
    guard["resourceVersion"] = newer.metadata.resource_version
    changed = await at.patch(VIRTUAL_MACHINES, {"metadata": guard, "spec": {"running": True}})
    assert changed.spec.running


async def a_patch_with_another_uid_is_invalid(at: Place) -> None:
    """Without a version; it would change the UID."""
    made = await at.vm()
    launched = await at.pod()
    resources: tuple[Resource[Any], ...] = (VIRTUAL_MACHINES, PODS)
    for resource in resources:
        with pytest.raises(errors.InvalidError, match="uid"):
            await at.patch(resource, {"metadata": {"uid": ANOTHER, "labels": {"a": "b"}}})
    assert await at.get(VIRTUAL_MACHINES) == made
    assert (await at.get(PODS)).metadata.labels == launched.metadata.labels
    labelled = await at.patch(VIRTUAL_MACHINES, {"metadata": {"uid": made.metadata.uid, "labels": {"a": "b"}}})
    assert labelled.metadata.labels == {"a": "b"}


async def one_of_two_candidates_takes_a_lease(at: Place) -> None:
    """Both have read the same version of it."""
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {}}
    seen = (await at.create(LEASES, body)).metadata.resource_version

    async def take(holder: str) -> str | None:
        guarded = {"metadata": {"resourceVersion": seen}, "spec": {"holderIdentity": holder, "leaseTransitions": 1}}
        return (await at.patch(LEASES, guarded)).spec.holder_identity

    assert await take("one") == "one"
    with pytest.raises(errors.ConflictError):
        await take("two")
    assert (await at.get(LEASES)).spec.holder_identity == "one"


async def the_data_of_a_config_map_is_patched_key_by_key(at: Place) -> None:
    """Null removes a key; a patch that changes nothing writes nothing, and an older version is a conflict."""
    labels = {"app.kubernetes.io/managed-by": "cases"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": labels}, "data": {"a": "1"}}
    made = await at.create(CONFIG_MAPS, body)
    assert (made.data, made.metadata.labels) == ({"a": "1"}, labels)
    guard = {"uid": made.metadata.uid, "resourceVersion": made.metadata.resource_version}
    changed = await at.patch(CONFIG_MAPS, {"metadata": guard, "data": {"a": None, "b": "2"}})
    assert changed.data == {"b": "2"}
    assert await at.patch(CONFIG_MAPS, {"data": {"b": "2"}}) == changed == await at.get(CONFIG_MAPS)
    with pytest.raises(errors.ConflictError):
        await at.patch(CONFIG_MAPS, {"metadata": guard, "data": {"b": "3"}})
    with pytest.raises(errors.AlreadyExistsError):
        await at.create(CONFIG_MAPS, body)


async def the_series_of_an_event_can_be_patched(at: Place) -> None:
    """Its fields are at the top, and there is no status subresource."""
    stamp = "2026-01-15T10:00:00.000000Z"
    regarding = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "namespace": at.namespace, "name": "a"}
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "a", "namespace": at.namespace},
        "eventTime": stamp,
        "reportingController": "example.com/cases",
        "reportingInstance": "one",
        "action": "Act",
        "reason": "Reason",
        "regarding": regarding,
        "note": "words",
        "type": "Normal",
    }
    made = await at.create(EVENTS, body)
    series = {"series": {"count": 2, "lastObservedTime": stamp}}
    counted = await at.patch(EVENTS, series)
    assert version(counted) > version(made)
    assert version(await at.patch(EVENTS, series)) == version(counted)
    with pytest.raises(errors.AlreadyExistsError):
        await at.create(EVENTS, body)
    with pytest.raises(errors.NotFoundError):
        await at.patch(EVENTS, series, "other")


async def migrations_have_defaults_and_a_status_subresource(at: Place) -> None:
    """As VMs have."""
    body = {"apiVersion": names.API_VERSION, "kind": names.MIGRATION_KIND, "metadata": {"name": "a"}}
    made = await at.create(MIGRATIONS, {**body, "spec": {"vmName": "vm"}})
    assert (made.spec.unschedulable_timeout_seconds, made.spec.cancel, made.status.phase) == (300, False, "Pending")
    moved = await at.patch(MIGRATIONS, {"status": {"phase": "Failed"}}, subresource="status")
    assert (moved.status.phase, moved.metadata.generation) == ("Failed", 1)
    cancelled = await at.patch(MIGRATIONS, {"spec": {"cancel": True}, "status": {"phase": "Pending"}})
    assert (cancelled.status.phase, cancelled.spec.cancel, cancelled.metadata.generation) == ("Failed", True, 2)


CASES: Final[tuple[Case, ...]] = (
    a_create_returns_the_object_with_its_identity,
    a_name_is_unique_within_a_resource,
    an_object_created_again_has_another_uid,
    a_generated_name_ends_in_five_random_characters,
    a_create_in_a_missing_namespace_is_not_found,
    an_object_has_the_namespace_of_its_request,
    apply_removes_fields_that_it_no_longer_has,
    a_review_is_answered_and_not_stored,
    a_field_that_the_crd_does_not_have_is_dropped,
    a_dry_run_stores_nothing,
    a_new_node_has_the_not_ready_taint,
    every_change_has_a_later_version,
    a_patch_that_changes_nothing_writes_nothing,
    a_merge_patch_sets_and_removes_fields,
    the_status_subresource_is_written_separately,
    only_a_new_spec_or_a_deletion_increments_the_generation,
    a_patch_with_an_older_version_is_a_conflict,
    a_patch_with_another_uid_is_invalid,
    one_of_two_candidates_takes_a_lease,
    the_data_of_a_config_map_is_patched_key_by_key,
    the_series_of_an_event_can_be_patched,
    migrations_have_defaults_and_a_status_subresource,
)
