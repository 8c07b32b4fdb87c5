"""The behaviour of deletions, the same for the model and for a real API server."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import PODS
from tests.model.place import ANOTHER, GONE, HOLD, Case, Place, version


async def a_deletion_is_of_one_state_of_one_object(at: Place) -> None:
    """A deletion with another UID or version is a conflict and deletes nothing; a deleted object is not found."""
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


async def the_answer_to_a_deletion_may_name_its_version(at: Place) -> None:
    """A pod's does, and it is the version of the watch event; that of a custom resource deleted at once does not."""
    before = await at.page(PODS)
    made = await at.pod()
    gone = await at.delete(PODS, made.metadata)
    assert await at.told(PODS, before.resource_version, ("ADDED", "DELETED")) == [
        ("ADDED", "a", version(made)),
        ("DELETED", "a", int(gone)),
    ]
    assert await at.delete(VIRTUAL_MACHINES, (await at.vm()).metadata) == ""
    held = await at.vm("held", finalizers=[HOLD])
    going = await at.delete(VIRTUAL_MACHINES, held.metadata)
    assert int(going) == version(await at.get(VIRTUAL_MACHINES, "held")) > version(held)
    await at.release(VIRTUAL_MACHINES, "held")


async def a_finalizer_holds_what_is_deleted(at: Place) -> None:
    """The object gets a deletion timestamp, once; it is deleted with its last finalizer, at a version of its own."""
    made = await at.vm(finalizers=[HOLD, "example.com/other"])
    await at.delete(VIRTUAL_MACHINES, made.metadata)
    going = await at.get(VIRTUAL_MACHINES)
    assert going.metadata.deletion_timestamp is not None
    assert (going.metadata.uid, going.metadata.deletion_grace_period_seconds) == (made.metadata.uid, 0)
    assert await at.delete(VIRTUAL_MACHINES, made.metadata) == going.metadata.resource_version
    assert await at.get(VIRTUAL_MACHINES) == going
    with pytest.raises(errors.AlreadyExistsError):
        await at.vm()
    half = await at.patch(VIRTUAL_MACHINES, {"metadata": {"finalizers": [HOLD]}})
    await at.release(VIRTUAL_MACHINES)
    assert not await at.exists(VIRTUAL_MACHINES)
    (deleted,) = await at.told(VIRTUAL_MACHINES, half.metadata.resource_version, ("DELETED",))
    assert (deleted[:2], deleted[2] > version(half)) == (("DELETED", "a"), True)


async def a_pod_without_a_node_goes_at_once(at: Place) -> None:
    """Whatever its grace period is. With a finalizer its grace period is 0, and it stays until that is removed."""
    await at.delete(PODS, (await at.pod()).metadata, grace_seconds=60)
    assert not await at.exists(PODS)
    held = await at.pod("held", finalizers=[HOLD])
    await at.delete(PODS, held.metadata)
    metadata = (await at.get(PODS, "held")).metadata
    assert (metadata.deletion_grace_period_seconds, metadata.deletion_timestamp is None) == (0, False)
    await at.release(PODS, "held")
    assert not await at.exists(PODS, "held")


async def a_pod_on_a_node_terminates(at: Place) -> None:
    """For 30 s, until a kubelet confirms its end. A later deletion can only shorten that; 0 s deletes it at once."""
    made = await at.pod(node=GONE)
    first = await at.delete(PODS, made.metadata)
    going = (await at.get(PODS)).metadata
    assert (going.deletion_grace_period_seconds, going.resource_version) == (30, first)
    assert _seconds_between(made.metadata.creation_timestamp, going.deletion_timestamp) in range(30, 45)
    assert await at.delete(PODS, made.metadata) == first
    assert await at.delete(PODS, made.metadata, grace_seconds=60) == first
    await at.delete(PODS, made.metadata, grace_seconds=5)
    sooner = (await at.get(PODS)).metadata
    assert sooner.deletion_grace_period_seconds == 5
    assert _seconds_between(sooner.deletion_timestamp, going.deletion_timestamp) == 25
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert not await at.exists(PODS)


async def a_finalizer_holds_a_pod_that_has_no_time_left(at: Place) -> None:
    """Its end does not wait for a kubelet then."""
    made = await at.pod(node=GONE, finalizers=[HOLD])
    await at.delete(PODS, made.metadata)
    assert (await at.get(PODS)).metadata.deletion_grace_period_seconds == 30
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert (await at.get(PODS)).metadata.deletion_grace_period_seconds == 0
    await at.release(PODS)
    assert not await at.exists(PODS)


async def a_kubelet_ends_a_pod_whose_finalizer_is_gone(at: Place) -> None:
    """During its grace period only the kubelet ends it."""
    made = await at.pod(node=GONE, finalizers=[HOLD])
    await at.delete(PODS, made.metadata)
    await at.release(PODS)
    assert await at.exists(PODS)
    await at.delete(PODS, made.metadata, grace_seconds=0)
    assert not await at.exists(PODS)


async def a_pod_that_has_ended_goes_at_once(at: Place) -> None:
    """No kubelet has to stop it."""
    for phase in ("Succeeded", "Failed"):
        made = await at.pod(phase.lower(), node=GONE)
        await at.patch(PODS, {"status": {"phase": phase}}, phase.lower(), subresource="status")
        await at.delete(PODS, made.metadata)
        assert not await at.exists(PODS, phase.lower())


def _seconds_between(earlier: str | None, later: str | None) -> float:
    assert earlier is not None
    assert later is not None
    return abs(datetime.fromisoformat(later) - datetime.fromisoformat(earlier)) / timedelta(seconds=1)


CASES: Final[tuple[Case, ...]] = (
    a_deletion_is_of_one_state_of_one_object,
    the_answer_to_a_deletion_may_name_its_version,
    a_finalizer_holds_what_is_deleted,
    a_pod_without_a_node_goes_at_once,
    a_pod_on_a_node_terminates,
    a_finalizer_holds_a_pod_that_has_no_time_left,
    a_kubelet_ends_a_pod_whose_finalizer_is_gone,
    a_pod_that_has_ended_goes_at_once,
)
