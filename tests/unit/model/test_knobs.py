"""The knobs of the API server's model: faults and delays that a real API server cannot be asked for within a test."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import codec, errors
from tests.model.faults import Fault
from tests.model.place import Place, vm
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime


@pytest.fixture
def server() -> ApiServer:
    """Return an empty server."""
    return ApiServer()


@pytest.fixture
def at(server: ApiServer) -> Place:
    """Return the place of a case on it."""
    return Place(server, "default")


async def test_bookmarks_come_each_minute_and_before_the_end(server: ApiServer) -> None:
    """As real API servers send them; a watch shorter than a minute gets none."""
    clock = asyncio.get_running_loop().time
    received: list[tuple[float, str]] = []
    for life in (40, 70, 130):
        began = clock()
        async for batch in server.watch(VIRTUAL_MACHINES, resource_version="100", life=life):
            received += [(clock() - began, event.type) for event in batch]
        assert clock() - began == life
    assert received == [(at, "BOOKMARK") for at in (60, 68, 60, 120, 128)]


async def test_a_continue_token_expires_with_a_compaction(server: ApiServer, at: Place) -> None:
    """A new list succeeds."""
    for name in "abc":
        await at.vm(name)
    page = await at.page(VIRTUAL_MACHINES, limit=2)
    server.compact()
    with pytest.raises(errors.ExpiredError):
        await at.page(VIRTUAL_MACHINES, limit=2, token=page.continue_token)
    assert len((await at.page(VIRTUAL_MACHINES)).items) == 3


async def test_an_open_watch_can_be_expired(server: ApiServer, at: Place) -> None:
    """As one with a slow reader."""
    async with aclosing(at.watch(VIRTUAL_MACHINES, "100")) as events:
        assert await anext(events) == []
        server.watches.expire()
        (error,) = await anext(events)
        assert codec.decode_status(bytes(error.object)).code == 410


async def test_a_write_with_a_lost_reply_takes_effect_or_not(server: ApiServer, at: Place) -> None:
    """As its fault says."""
    lost = errors.TransportError("no reply")
    server.faults += [
        Fault("create", VIRTUAL_MACHINES.plural, lost, name="b"),
        Fault("create", VIRTUAL_MACHINES.plural, lost, commit=False),
    ]
    for name in "ab":
        with pytest.raises(errors.TransportError):
            await at.vm(name)
    assert server.names(VIRTUAL_MACHINES) == ["b"]
    assert server.writes == ["create virtualmachines"]
    assert server.requests == ["create virtualmachines"] * 2


async def test_a_late_write_takes_effect_within_its_deadline(server: ApiServer, at: Place) -> None:
    """When the test's clock reaches its time, judged by the state at that time."""
    lost = errors.TransportError("no reply")
    server.faults += [Fault("create", VIRTUAL_MACHINES.plural, lost, late=10.0) for _ in range(2)]
    for name in "ab":
        with pytest.raises(errors.TransportError):
            await at.vm(name)
    await at.vm("a")
    server.pass_time(9)
    assert server.names(VIRTUAL_MACHINES) == ["a"]
    server.pass_time(1)
    assert server.names(VIRTUAL_MACHINES) == ["a", "b"]
    server.faults.append(Fault("create", VIRTUAL_MACHINES.plural, lost, late=10.1))
    with pytest.raises(AssertionError, match="deadline"):
        await at.vm("c")


async def test_a_failure_lasts_until_the_test_removes_it(server: ApiServer, at: Place) -> None:
    """For a whole resource, or for one object."""
    server.failures = {"get virtualmachines/a": errors.ServerError(500, "InternalError", "oops")}
    for name in "ab":
        await at.vm(name)
    assert await at.exists(VIRTUAL_MACHINES, "b")
    for _ in range(2):
        with pytest.raises(errors.ServerError):
            await at.get(VIRTUAL_MACHINES)
    server.failures.clear()
    assert await at.exists(VIRTUAL_MACHINES)


async def test_watches_can_be_late_or_wait_for_the_test(server: ApiServer, at: Place) -> None:
    """Their events have the versions of the changes."""
    clock = asyncio.get_running_loop().time
    began = clock()
    server.watches.lag[VIRTUAL_MACHINES.plural] = 3.0
    async with aclosing(at.watch(VIRTUAL_MACHINES, "100")) as events:
        await anext(events)
        made = await at.vm()
        (late,) = await anext(events)
        assert clock() - began == 3
        assert codec.decode(late.object, VirtualMachine) == made
        server.watches.held = []
        await at.vm("b")
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(30)
        assert not waiting.done()
        delivering = asyncio.create_task(server.watches.deliver(1))
        (pending,) = await waiting
        assert not delivering.done(), "its reader has not asked for more"
        assert codec.decode(pending.object, VirtualMachine).metadata.name == "b"
        more = asyncio.create_task(anext(events))
        await delivering
        more.cancel()
        await asyncio.wait({more})


async def test_every_request_waits_until_the_test_admits_it(server: ApiServer, at: Place) -> None:
    """The server handles it by the state at that time."""
    gate = asyncio.Event()

    async def turn(_: str) -> None:
        await gate.wait()

    server.turn = turn
    asked = asyncio.create_task(at.vm())
    await asyncio.sleep(1)
    assert server.requests == []
    server.add(VIRTUAL_MACHINES.plural, vm(namespace="default"))
    gate.set()
    with pytest.raises(errors.AlreadyExistsError):
        await asked
