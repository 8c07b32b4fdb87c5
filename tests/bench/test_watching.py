"""The benchmark's watch passes on every change, or ends the measurement."""

from __future__ import annotations

import asyncio

import pytest

from controller.kube import errors
from hack.bench.errors import BenchError
from hack.bench.objects import NAMESPACE, PODS, Brief
from hack.bench.watching import until, watching
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime


class Events:
    """Records the events: name, whether deleted, and time."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, float]] = []

    def __call__(self, item: Brief, deleted: bool, at: float) -> None:  # noqa: FBT001 - a callback's signature
        """Record an event."""
        self.seen.append((item.metadata.name, deleted, at))


async def test_every_change_is_passed_on_with_the_time_of_its_arrival() -> None:
    """Objects that existed before are not passed on."""
    server, events = ApiServer(), Events()
    server.put(PODS.plural, f"{NAMESPACE}/old")
    async with watching(server, PODS, events):
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(2)
        server.put(PODS.plural, f"{NAMESPACE}/new")
        await asyncio.sleep(2)
        server.remove(PODS, f"{NAMESPACE}/old")
        await asyncio.sleep(2)

    assert [(name, deleted, round(at - began, 3)) for name, deleted, at in events.seen] == [
        ("new", False, 2),
        ("old", True, 4),
    ]


async def test_a_watch_that_the_server_ends_is_resumed() -> None:
    """The server ends a watch every few minutes."""
    server, events = ApiServer(), Events()
    async with watching(server, PODS, events) as task:
        await asyncio.sleep(3600)
        server.put(PODS.plural, f"{NAMESPACE}/new")
        await asyncio.sleep(1)
        assert not task.done()

    assert [name for name, *_ in events.seen] == ["new"]


@pytest.mark.parametrize("failure", ["the watch expires", "an object is malformed"])
async def test_a_watch_that_may_have_missed_an_event_ends_the_measurement(failure: str) -> None:
    """The figures would be wrong."""
    server = ApiServer()
    async with watching(server, PODS, Events()) as task:
        if failure == "the watch expires":
            server.watches.expire()
        else:
            server.put(PODS.plural, f"{NAMESPACE}/malformed", metadata={"labels": 7})
        with pytest.raises(BenchError, match="watching pods"):
            await until(asyncio.Event().wait(), task, deadline=60, what=lambda: "nothing")


async def test_a_watch_that_is_refused_ends_the_measurement() -> None:
    """Before the measurement begins."""
    server = ApiServer()
    server.failures["watch pods"] = errors.ForbiddenError(403, "Forbidden", "not you")
    with pytest.raises(BenchError, match="not you"):
        async with watching(server, PODS, Events()):
            pytest.fail("the watch was refused")
