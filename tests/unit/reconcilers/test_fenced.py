"""No write is sent by a process that does not lead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from controller.reconcilers.api import Api, Fenced
from tests.model.cluster import Cluster

Write = Callable[[Api, ObjectMeta], Awaitable[Any]]

WRITES: dict[str, Write] = {
    "create": lambda api, _: api.create(PODS, {"metadata": {"name": "other"}}, namespace="default", server_deadline=5),
    "patch": lambda api, vm: api.merge_patch(
        VIRTUAL_MACHINES, vm.name, {"metadata": {"labels": {"a": "b"}}}, namespace="default"
    ),
    "delete": lambda api, vm: api.delete(VIRTUAL_MACHINES, vm.name, namespace="default", uid=vm.uid),
}


async def known() -> tuple[Cluster, ObjectMeta]:
    """Return a cluster with a VM, and the VM's metadata."""
    cluster = Cluster()
    cluster.apply_vm()
    return cluster, (await cluster.get(VIRTUAL_MACHINES, "vm-1", namespace="default")).metadata


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_process_that_does_not_lead_sends_no_write(write: Write) -> None:
    """The request is not even sent."""
    cluster, vm = await known()
    before = list(cluster.log)

    with pytest.raises(errors.NotLeadingError):
        await write(Fenced(cluster, lambda: False), vm)

    assert cluster.log == before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_leader_writes(write: Write) -> None:
    """As without a fence."""
    cluster, vm = await known()
    before = list(cluster.log)

    await write(Fenced(cluster, lambda: True), vm)

    assert len(cluster.log) == len(before) + 1


async def test_a_process_that_does_not_lead_may_read() -> None:
    """Its caches stay warm."""
    cluster, vm = await known()

    found = await Fenced(cluster, lambda: False).get(VIRTUAL_MACHINES, vm.name, namespace="default")

    assert found.metadata.uid == vm.uid
