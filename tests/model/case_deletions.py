"""The behaviour of deletions, the same for the model and for a real API server."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import PODS
from tests.model.place import ANOTHER, HOLD, NO_KUBELET, Case, Place, version


async def a_deletion_checks_uid_and_version(at: Place) -> None:
    """Another UID or version is a conflict, and deletes nothing; a deleted object is not found."""
    made = await at.vm()
    newer = await at.patch(VIRTUAL_MACHINES, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(errors.ConflictError):
        await at.delete(VIRTUAL_MACHINES, made.metadata, uid=ANOTHER)
    with pytest.raises(errors.ConflictError):
        await at.delete(VIRTUAL_MACHINES, made.metadata, resource_version=made.metadata.resource_version)
    assert await at.get(VIRTUAL_MACHINES) == newer
    await at.delete(VIRTUAL_MACHINES, made.metadata, resource_version=newer.metadata.resource_version)
    with pytest.raises(errors.NotFoundError):
        await at.delete(VIRTUAL_MACHINES, made.metadata)


async def the_reply_to_a_deletion_has_its_version_if_the_object_is_in_it(at: Place) -> None:
    """A pod's has; that of a custom resource that is deleted at once has none."""
    before = await at.page(PODS)
    made = await at.pod()
    deleted = await at.delete(PODS, made.metadata)
    assert await at.changes(PODS, before.resource_version, ("ADDED", "DELETED")) == [
        ("ADDED", "a", version(made)),
        ("DELETED", "a", int(deleted)),
    ]
    assert await at.delete(VIRTUAL_MACHINES, (await at.vm()).metadata) == ""
    blocked = await at.vm("blocked", finalizers=[HOLD])
    terminating = await at.delete(VIRTUAL_MACHINES, blocked.metadata)
    assert int(terminating) == version(await at.get(VIRTUAL_MACHINES, "blocked")) > version(blocked)
    await at.release(VIRTUAL_MACHINES, "blocked")


async def an_object_with_finalizers_stays_until_the_last_is_removed(at: Place) -> None:
    """It gets one deletion timestamp; its deletion has a version of its own."""
    made = await at.vm(finalizers=[HOLD, "example.com/other"])
    await at.delete(VIRTUAL_MACHINES, made.metadata)
    terminating = await at.get(VIRTUAL_MACHINES)
    assert terminating.metadata.deletion_timestamp is not None
    assert (terminating.metadata.uid, terminating.metadata.deletion_grace_period_seconds) == (made.metadata.uid, 0)
    assert await at.delete(VIRTUAL_MACHINES, made.metadata) == terminating.metadata.resource_version
    assert await at.get(VIRTUAL_MACHINES) == terminating
    with pytest.raises(errors.AlreadyExistsError):
        await at.vm()
    half = await at.patch(VIRTUAL_MACHINES, {"metadata": {"finalizers": [HOLD]}})
    await at.release(VIRTUAL_MACHINES)
    assert not await at.exists(VIRTUAL_MACHINES)
    (deleted,) = await at.changes(VIRTUAL_MACHINES, half.metadata.resource_version, ("DELETED",))
    assert (deleted[:2], deleted[2] > version(half)) == (("DELETED", "a"), True)


async def a_pod_without_a_node_is_deleted_at_once(at: Place) -> None:
    """Whatever its grace period is. With a finalizer its grace period is 0, and it stays until that is removed."""
    await at.delete(PODS, (await at.pod()).metadata, grace_seconds=60)
    assert not await at.exists(PODS)
    blocked = await at.pod("blocked", finalizers=[HOLD])
    await at.delete(PODS, blocked.metadata)
    metadata = (await at.get(PODS, "blocked")).metadata
    assert (metadata.deletion_grace_period_seconds, metadata.deletion_timestamp is None) == (0, False)
    await at.release(PODS, "blocked")
    assert not await at.exists(PODS, "blocked")


async def a_pod_on_a_node_terminates_within_its_grace_period(at: Place) -> None:
    """For 30 s, until a kubelet confirms its end. A later deletion can only shorten that; 0 s deletes it at once."""
    made = await at.pod(node=NO_KUBELET)
    first = await at.delete(PODS, made.metadata)
    terminating = (await at.get(PODS)).metadata
    assert (terminating.deletion_grace_period_seconds, terminating.resource_version) == (30, first)
    assert _seconds_between(made.metadata.creation_timestamp, terminating.deletion_timestamp) in range(30, 45)
    assert await at.delete(PODS, made.metadata) == first
    assert await at.delete(PODS, made.metadata, grace_seconds=60) == first
    await at.delete(PODS, made.metadata, grace_seconds=5)
    sooner = (await at.get(PODS)).metadata
    assert sooner.deletion_grace_period_seconds == 5
    assert _seconds_between(sooner.deletion_timestamp, terminating.deletion_timestamp) == 25
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert not await at.exists(PODS)


async def a_pod_with_a_finalizer_stays_after_a_grace_period_of_0(at: Place) -> None:
    """Its deletion then does not wait for a kubelet."""
    made = await at.pod(node=NO_KUBELET, finalizers=[HOLD])
    await at.delete(PODS, made.metadata)
    assert (await at.get(PODS)).metadata.deletion_grace_period_seconds == 30
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert (await at.get(PODS)).metadata.deletion_grace_period_seconds == 0
    await at.release(PODS)
    assert not await at.exists(PODS)


async def a_pod_without_finalizers_terminates_until_its_grace_period_is_over(at: Place) -> None:
    """During its grace period only the kubelet ends it."""
    made = await at.pod(node=NO_KUBELET, finalizers=[HOLD])
    await at.delete(PODS, made.metadata)
    await at.release(PODS)
    assert await at.exists(PODS)
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert not await at.exists(PODS)


async def a_pod_that_has_ended_is_deleted_at_once(at: Place) -> None:
    """No kubelet has to stop it."""
    for phase in ("Succeeded", "Failed"):
        made = await at.pod(phase.lower(), node=NO_KUBELET)
        await at.patch(PODS, {"status": {"phase": phase}}, phase.lower(), subresource="status")
        await at.delete(PODS, made.metadata)
        assert not await at.exists(PODS, phase.lower())


def _seconds_between(earlier: str | None, later: str | None) -> float:
    assert earlier is not None
    assert later is not None
    return abs(datetime.fromisoformat(later) - datetime.fromisoformat(earlier)) / timedelta(seconds=1)


CASES: Final[tuple[Case, ...]] = (
    a_deletion_checks_uid_and_version,
    the_reply_to_a_deletion_has_its_version_if_the_object_is_in_it,
    an_object_with_finalizers_stays_until_the_last_is_removed,
    a_pod_without_a_node_is_deleted_at_once,
    a_pod_on_a_node_terminates_within_its_grace_period,
    a_pod_with_a_finalizer_stays_after_a_grace_period_of_0,
    a_pod_without_finalizers_terminates_until_its_grace_period_is_over,
    a_pod_that_has_ended_is_deleted_at_once,
)
