"""Watching while something is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors as kube
from controller.kube.verbs import Page
from controller.operations.errors import NotListedError
from controller.operations.watching import ChangeSignal, watching
from tests.model.staged import Staged

pytestmark = pytest.mark.looptime


async def test_a_store_is_full_from_the_start(cluster: Staged) -> None:
    """The caller never sees it empty."""
    cluster.vm()
    async with watching(cluster, VIRTUAL_MACHINES, ChangeSignal().touch) as store:
        assert [vm.metadata.name for vm in store] == ["vm-1"]


async def test_a_change_wakes_the_waiter(cluster: Staged) -> None:
    """At once, and the store shows it."""
    signal = ChangeSignal()
    async with watching(cluster, VIRTUAL_MACHINES, signal.touch) as store:
        await signal.change(0)
        asyncio.get_running_loop().call_later(2, cluster.vm)
        await signal.change(60)
        assert asyncio.get_running_loop().time() == 2
        assert store.get("default/vm-1") is not None


async def test_no_change_is_waited_for_no_longer_than_said(cluster: Staged) -> None:
    """The wait returns at its timeout."""
    signal = ChangeSignal()
    async with watching(cluster, VIRTUAL_MACHINES, signal.touch):
        await signal.change(0)
        await signal.change(5)
        assert asyncio.get_running_loop().time() == 5


async def test_a_list_that_never_comes_is_an_error(cluster: Staged) -> None:
    """After half a minute of tries."""
    cluster.failures["list virtualmachines"] = kube.ServerError(500, "InternalError", "oops")
    with pytest.raises(NotListedError, match="the API server lists no virtualmachines"):
        async with watching(cluster, VIRTUAL_MACHINES, ChangeSignal().touch):
            pytest.fail("nothing was listed")
    assert asyncio.get_running_loop().time() == 30


async def test_a_defect_that_ends_the_watch_is_raised_at_once() -> None:
    """And not taken for a list that never comes."""

    class Broken(Staged):
        async def list_page(self, *arguments: Any, limit: int, **keywords: Any) -> Page[Any]:
            if limit != 1:  # the first look, by which a resource that is not there is known, is not the reflector's
                raise RuntimeError("a defect")
            return await super().list_page(*arguments, limit=limit, **keywords)

    with pytest.raises(RuntimeError, match="a defect"):
        async with watching(Broken(), VIRTUAL_MACHINES, ChangeSignal().touch):
            pytest.fail("nothing was listed")
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.parametrize(
    "error",
    [kube.NotFoundError(404, "", "404 page not found"), kube.ForbiddenError(403, "Forbidden", "you may not list")],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_that_retrying_will_not_mend_is_raised_at_once(cluster: Staged, error: kube.StatusError) -> None:
    """As itself."""
    cluster.failures["list virtualmachines"] = error
    with pytest.raises(type(error), match=error.message):
        async with watching(cluster, VIRTUAL_MACHINES, ChangeSignal().touch):
            pytest.fail("nothing was listed")
    assert asyncio.get_running_loop().time() == 0


async def test_a_server_that_stumbles_is_asked_again(cluster: Staged) -> None:
    """Until it lists."""
    cluster.failures["list virtualmachines"] = kube.ServerError(500, "InternalError", "oops")
    asyncio.get_running_loop().call_later(3, cluster.failures.clear)
    cluster.vm()
    async with watching(cluster, VIRTUAL_MACHINES, ChangeSignal().touch) as store:
        assert len(store) == 1


async def test_the_watch_ends_with_its_context(cluster: Staged) -> None:
    """Here: by cancellation."""

    async def look() -> None:
        async with watching(cluster, VIRTUAL_MACHINES, ChangeSignal().touch):
            await asyncio.sleep(60)

    task = asyncio.create_task(look())
    await asyncio.sleep(1)
    assert len(cluster.watches.open) == 1
    task.cancel()
    await asyncio.wait({task})
    assert cluster.watches.open == []
