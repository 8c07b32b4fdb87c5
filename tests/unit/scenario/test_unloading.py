"""Unloading: the objects that it deletes, their order, and the objects that it leaves."""

from __future__ import annotations

import asyncio

import pytest

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.scenario.errors import KeptError, NotGoneError
from controller.scenario.unloading import Removal, Removed, unload
from tests.unit.scenario.builders import Api, pod_of

pytestmark = pytest.mark.looptime

OURS = {"labels": {names.SCENARIO_LABEL: "demo"}}


def loaded() -> Api:
    """Return an API server with one node and two VMs of demo, and one node and one VM of another."""
    api = Api()
    api.put(NODES.plural, "/n-1", metadata=OURS)
    api.put(NODES.plural, "/foreign-node")
    for namespace, name in (("default", "vm-1"), ("other", "vm-2")):
        api.put(VIRTUAL_MACHINES.plural, f"{namespace}/{name}", metadata=OURS)
    api.put(VIRTUAL_MACHINES.plural, "default/foreign-vm", metadata={"labels": {names.SCENARIO_LABEL: "other"}})
    return api


async def unloaded(api: Api, *, deadline: float = 60.0, reports: list[Removal] | None = None) -> Removed:
    """Unload demo."""
    seen = reports if reports is not None else []
    return await unload(api, "demo", report=seen.append, deadline=deadline)


async def test_an_unload_deletes_exactly_the_objects_with_the_label() -> None:
    """In every namespace."""
    api = loaded()
    removed = await unloaded(api)
    assert removed == Removed(vms=("default/vm-1", "other/vm-2"), nodes=("n-1",))
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["foreign-vm"]
    assert sorted(api.names(NODES)) == ["foreign-node"]


async def test_a_second_unload_deletes_nothing() -> None:
    """It is no error."""
    api = loaded()
    await unloaded(api)
    api.tried.clear()
    assert await unloaded(api) == Removed((), ())
    assert api.tried == []


async def test_nodes_are_deleted_after_the_vms_pods() -> None:
    """KWOK ends no pod on an unknown node."""
    api = loaded()
    vm = api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"]
    pod_of(api, vm)
    clock = asyncio.get_running_loop().time
    began = clock()
    deleted: list[float] = []
    api.before = lambda request: deleted.append(clock()) if request == "DELETE n-1" else None
    asyncio.get_running_loop().call_later(20, api.remove, PODS, "default/virt-launcher-vm-1")
    await unloaded(api)
    assert deleted[0] - began >= 20


async def test_an_unload_does_not_wait_for_foreign_pods() -> None:
    """They have another owner."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/foreign-vm"])
    await unloaded(api)
    assert sorted(api.names(PODS)) == ["virt-launcher-foreign-vm"]


async def test_a_recreated_object_of_the_same_name_is_not_deleted() -> None:
    """A delete carries the listed UID."""
    api = loaded()

    def recreate(request: str) -> None:
        if request == "DELETE vm-1":
            api.remove(VIRTUAL_MACHINES, "default/vm-1")
            api.put(VIRTUAL_MACHINES.plural, "default/vm-1")

    api.before = recreate
    await unloaded(api)
    assert "vm-1" in api.names(VIRTUAL_MACHINES)


async def test_an_object_that_another_client_deleted_is_no_error() -> None:
    """It no longer exists, which is the goal."""
    api = loaded()
    api.before = lambda request: api.remove(VIRTUAL_MACHINES, "default/vm-1") if request == "DELETE vm-1" else None
    await unloaded(api)
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["foreign-vm"]


async def test_a_delete_with_a_lost_reply_is_retried() -> None:
    """The retry finds no object."""
    api = loaded()
    api.errors["DELETE vm-1"] = [errors.TransportError("reset")]
    await unloaded(api)
    assert api.tried.count("DELETE vm-1") == 2


async def test_a_failing_delete_is_reported_within_seconds_and_at_the_deadline() -> None:
    """In the server's words; deleted objects are not listed."""
    api = loaded()

    def fail(request: str) -> None:
        if request == "DELETE vm-1":
            raise errors.ServerError(500, "InternalError", "failed calling webhook")

    api.before = fail
    reports: list[Removal] = []
    with pytest.raises(NotGoneError) as error:
        await unloaded(api, deadline=30, reports=reports)
    assert error.value.why == {"VM default/vm-1": "not deleted yet: failed calling webhook (500 InternalError)"}
    assert reports[2].waiting == error.value.why
    assert len(reports) > 25


async def test_objects_left_at_the_deadline_are_named() -> None:
    """No node is deleted before them."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"])
    with pytest.raises(NotGoneError) as error:
        await unloaded(api, deadline=30)
    assert error.value.left == ("VM default/vm-1",)
    assert "n-1" in api.names(NODES)


async def test_a_terminating_vm_is_reported_with_its_finalizers() -> None:
    """While it waits and at the deadline."""
    api = loaded()
    for name in ("vm-1", "vm-2"):
        vm = next(item for (_, key), item in api.objects.items() if key.endswith(f"/{name}"))
        vm["metadata"]["finalizers"] = ["example.com/hold"]
    reports: list[Removal] = []
    with pytest.raises(
        NotGoneError, match=r"again: VM default/vm-1, .*: being deleted, held by finalizer example.com/hold"
    ):
        await unloaded(api, deadline=30, reports=reports)
    assert set(reports[-1].waiting.values()) == {"being deleted, held by finalizer example.com/hold"}


async def test_a_vm_whose_pod_still_exists_is_reported_with_the_pod() -> None:
    """So that the user can inspect it."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"])
    with pytest.raises(NotGoneError, match="VM default/vm-1: pod virt-launcher-vm-1 exists"):
        await unloaded(api, deadline=30)


async def test_progress_counts_deleted_objects() -> None:
    """Up to all of them."""
    reports: list[Removal] = []
    await unloaded(loaded(), reports=reports)
    assert reports[-1] == Removal(3, 3)
    assert all(report.total == 3 for report in reports)


async def test_an_unload_without_the_crds_deletes_the_nodes() -> None:
    """The VMs were deleted with the resource."""
    api = loaded()

    def unknown(request: str) -> None:
        if request == "LIST virtualmachines":
            raise errors.NotFoundError(404, "", "404 page not found")

    api.before = unknown
    assert await unloaded(api) == Removed((), ("n-1",))


async def test_a_refused_delete_is_reported_and_keeps_the_nodes() -> None:
    """The other VMs are deleted; the VM may run on a node."""
    api = loaded()
    api.errors["DELETE vm-1"] = [errors.ForbiddenError(403, "Forbidden", "it is protected")]
    with pytest.raises(KeptError, match="VM default/vm-1: it is protected") as error:
        await unloaded(api)
    assert list(error.value.kept) == ["VM default/vm-1"]
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["foreign-vm", "vm-1"]
    assert "n-1" in api.names(NODES)
