"""What an unload removes, in which order, and what it leaves alone."""

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
    """An API server with one node and two VMs of demo, one of each of others."""
    api = Api()
    api.put(NODES.plural, "/n-1", metadata=OURS)
    api.put(NODES.plural, "/strange-node")
    for namespace, name in (("default", "vm-1"), ("other", "vm-2")):
        api.put(VIRTUAL_MACHINES.plural, f"{namespace}/{name}", metadata=OURS)
    api.put(VIRTUAL_MACHINES.plural, "default/strange-vm", metadata={"labels": {names.SCENARIO_LABEL: "other"}})
    return api


async def unloaded(api: Api, *, deadline: float = 60.0, reports: list[Removal] | None = None) -> Removed:
    """Unload demo."""
    told = reports if reports is not None else []
    return await unload(api, "demo", report=told.append, deadline=deadline)


async def test_exactly_what_carries_the_label_is_removed() -> None:
    """In every namespace."""
    api = loaded()
    removed = await unloaded(api)
    assert removed == Removed(vms=("default/vm-1", "other/vm-2"), nodes=("n-1",))
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["strange-vm"]
    assert sorted(api.names(NODES)) == ["strange-node"]


async def test_a_second_unload_does_nothing() -> None:
    """And is no error."""
    api = loaded()
    await unloaded(api)
    api.tried.clear()
    assert await unloaded(api) == Removed((), ())
    assert api.tried == []


async def test_nodes_go_when_the_vms_pods_are_gone() -> None:
    """KWOK ends no pod on a node that it does not know."""
    api = loaded()
    vm = api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"]
    pod_of(api, vm)
    clock = asyncio.get_running_loop().time
    began = clock()
    gone: list[float] = []
    api.before = lambda request: gone.append(clock()) if request == "DELETE n-1" else None
    asyncio.get_running_loop().call_later(20, api.remove, PODS, "default/virt-launcher-vm-1")
    await unloaded(api)
    assert gone[0] - began >= 20


async def test_pods_of_others_are_not_waited_for() -> None:
    """They have another owner."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/strange-vm"])
    await unloaded(api)
    assert sorted(api.names(PODS)) == ["virt-launcher-strange-vm"]


async def test_an_object_that_took_the_name_meanwhile_is_left_alone() -> None:
    """A delete is for the very object that was seen."""
    api = loaded()

    def anew(request: str) -> None:
        if request == "DELETE vm-1":
            api.remove(VIRTUAL_MACHINES, "default/vm-1")
            api.put(VIRTUAL_MACHINES.plural, "default/vm-1")

    api.before = anew
    await unloaded(api)
    assert "vm-1" in api.names(VIRTUAL_MACHINES)


async def test_what_somebody_else_deleted_meanwhile_is_no_error() -> None:
    """It is gone, as wanted."""
    api = loaded()
    api.before = lambda request: api.remove(VIRTUAL_MACHINES, "default/vm-1") if request == "DELETE vm-1" else None
    await unloaded(api)
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["strange-vm"]


async def test_a_lost_reply_is_tried_again() -> None:
    """The second try finds it gone."""
    api = loaded()
    api.errors["DELETE vm-1"] = [errors.TransportError("reset")]
    await unloaded(api)
    assert api.tried.count("DELETE vm-1") == 2


async def test_why_a_deletion_is_put_off_is_told_within_seconds_and_at_the_end() -> None:
    """In the server's words; what is deleted or gone is not among it."""
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


async def test_what_is_left_at_the_deadline_is_named() -> None:
    """And nodes with it are left, too."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"])
    with pytest.raises(NotGoneError) as error:
        await unloaded(api, deadline=30)
    assert error.value.left == ("VM default/vm-1",)
    assert "n-1" in api.names(NODES)


async def test_what_holds_a_vm_is_told_with_it() -> None:
    """Its finalizers, or its pod's."""
    api = loaded()
    for name in ("vm-1", "vm-2"):
        vm = next(item for (_, key), item in api.objects.items() if key.endswith(f"/{name}"))
        vm["metadata"]["finalizers"] = ["example.com/hold"]
    reports: list[Removal] = []
    with pytest.raises(
        NotGoneError, match=r"left: VM default/vm-1, .*: being deleted, held by finalizer example.com/hold"
    ):
        await unloaded(api, deadline=30, reports=reports)
    assert set(reports[-1].waiting.values()) == {"being deleted, held by finalizer example.com/hold"}


async def test_a_pod_that_holds_its_vm_is_named() -> None:
    """A person can look at it."""
    api = loaded()
    pod_of(api, api.objects[VIRTUAL_MACHINES.plural, "default/vm-1"])
    with pytest.raises(NotGoneError, match="VM default/vm-1: pod virt-launcher-vm-1 is there"):
        await unloaded(api, deadline=30)


async def test_progress_counts_what_is_gone() -> None:
    """Up to everything."""
    reports: list[Removal] = []
    await unloaded(loaded(), reports=reports)
    assert reports[-1] == Removal(3, 3)
    assert all(report.total == 3 for report in reports)


async def test_without_our_resources_the_nodes_go() -> None:
    """The VMs went with the resource."""
    api = loaded()

    def unknown(request: str) -> None:
        if request == "LIST virtualmachines":
            raise errors.NotFoundError(404, "", "404 page not found")

    api.before = unknown
    assert await unloaded(api) == Removed((), ("n-1",))


async def test_what_may_not_be_deleted_is_named_and_stops_nothing_else() -> None:
    """But nodes stay, on which it may run."""
    api = loaded()
    api.errors["DELETE vm-1"] = [errors.ForbiddenError(403, "Forbidden", "it is protected")]
    with pytest.raises(KeptError, match="VM default/vm-1: it is protected") as error:
        await unloaded(api)
    assert list(error.value.kept) == ["VM default/vm-1"]
    assert sorted(api.names(VIRTUAL_MACHINES)) == ["strange-vm", "vm-1"]
    assert "n-1" in api.names(NODES)
