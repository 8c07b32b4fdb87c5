"""The benchmark's watch hands over every change, or ends the measurement."""

from __future__ import annotations

import asyncio

import pytest

from controller.kube import errors
from hack.bench.errors import BenchError
from hack.bench.objects import NAMESPACE, PODS, Brief
from hack.bench.watching import until, watching
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime


class Heard:
    """What was handed over: names, whether deleted, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[str, bool, float]] = []

    def __call__(self, item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        """Take one."""
        self.events.append((item.metadata.name, deleted, at))


async def test_every_change_is_handed_over_with_the_time_of_its_arrival() -> None:
    """Nothing of what was there before."""
    server, heard = ApiServer(), Heard()
    server.put(PODS.plural, f"{NAMESPACE}/old")
    async with watching(server, PODS, heard):
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(2)
        server.put(PODS.plural, f"{NAMESPACE}/new")
        await asyncio.sleep(2)
        server.remove(PODS, f"{NAMESPACE}/old")
        await asyncio.sleep(2)

    assert [(name, deleted, round(at - began, 3)) for name, deleted, at in heard.events] == [
        ("new", False, 2),
        ("old", True, 4),
    ]


async def test_a_watch_that_the_server_ends_goes_on_where_it_was() -> None:
    """It does so every few minutes."""
    server, heard = ApiServer(), Heard()
    async with watching(server, PODS, heard) as task:
        await asyncio.sleep(3600)
        server.put(PODS.plural, f"{NAMESPACE}/new")
        await asyncio.sleep(1)
        assert not task.done()

    assert [name for name, *_ in heard.events] == ["new"]


@pytest.mark.parametrize("how", ["breaks", "cannot be read"])
async def test_a_watch_that_may_have_missed_something_ends_the_measurement(how: str) -> None:
    """Its figures would be of other things."""
    server = ApiServer()
    async with watching(server, PODS, Heard()) as task:
        if how == "breaks":
            server.watches.expire()
        else:
            server.put(PODS.plural, f"{NAMESPACE}/odd", metadata={"labels": 7})
        with pytest.raises(BenchError, match="watching pods"):
            await until(asyncio.Event().wait(), task, deadline=60, what=lambda: "nothing")


async def test_a_watch_that_is_refused_ends_the_measurement() -> None:
    """Before it begins."""
    server = ApiServer()
    server.failures["watch pods"] = errors.ForbiddenError(403, "Forbidden", "not you")
    with pytest.raises(BenchError, match="not you"):
        async with watching(server, PODS, Heard()):
            pytest.fail("the watch was refused")
