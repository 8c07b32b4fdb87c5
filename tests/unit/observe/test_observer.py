"""The observer records every event, or fails."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.policy import FAKE_NODES
from controller.kube import errors
from controller.kube.resources import NODES, PODS
from controller.observe.history import PodSeen
from controller.observe.observer import ObservationError, Observer
from tests.model.faults import Fault
from tests.model.server import ApiServer

pytestmark = pytest.mark.looptime

OWNER = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": "vm-1", "uid": "vm-uid", "controller": True}
LOST = errors.TransportError("refused")


@pytest.fixture
def server() -> ApiServer:
    """Return an API server with a fake node, and a pod and a VM in the observed namespace."""
    server = ApiServer()
    server.put(NODES.plural, "/node-1", metadata={"labels": dict(FAKE_NODES)})
    server.put(NODES.plural, "/strange")
    server.put(VIRTUAL_MACHINES.plural, "drill/vm-1")
    server.put(PODS.plural, "drill/pod-1", metadata={"ownerReferences": [OWNER]})
    server.put(PODS.plural, "elsewhere/pod-2")
    return server


def observing(server: ApiServer) -> Observer:
    """Return an observer of the namespace."""
    return Observer(server, "drill", Random(1))  # noqa: S311 - no secret


async def test_it_has_the_existing_objects_and_records_changes_with_their_times(server: ApiServer) -> None:
    """Of the namespace and of the fake nodes only."""
    async with observing(server) as observer:
        assert ([*observer.picture.nodes], len(observer.picture.pods)) == (["node-1"], 1)
        await asyncio.sleep(5)
        server.remove(PODS, "drill/pod-1")
        server.remove(PODS, "elsewhere/pod-2")
        await asyncio.sleep(5)

        [last] = [seen for seen in observer.history if isinstance(seen, PodSeen) and seen.deleted]
        assert (last.name, round(last.at, 3)) == ("pod-1", 5)
        assert observer.picture.pods == {}


async def test_a_broken_watch_is_resumed(server: ApiServer) -> None:
    """Events in between are recorded once the API server is back."""
    server.failures["watch pods"] = LOST
    async with observing(server) as observer:
        server.remove(PODS, "drill/pod-1")
        await asyncio.sleep(5)
        assert len(observer.picture.pods) == 1

        server.failures.clear()
        await observer.caught_up()
        assert observer.picture.pods == {}
        assert not observer.broken.done()


async def test_it_is_not_quiet_while_a_watch_is_broken(server: ApiServer) -> None:
    """A change that happens meanwhile is recorded first."""
    server.failures["watch pods"] = LOST
    async with observing(server) as observer:
        quiet = asyncio.create_task(observer.quiet(0.5))
        server.remove(PODS, "drill/pod-1")
        await asyncio.sleep(5)
        server.failures.clear()
        await quiet
        assert observer.picture.pods == {}


async def test_it_fails_when_a_watch_cannot_be_resumed(server: ApiServer) -> None:
    """A list would not show the events in between."""
    async with observing(server) as observer:
        await asyncio.sleep(1)
        server.watches.expire()
        await asyncio.sleep(1)

        with pytest.raises(ObservationError, match="were missed"):
            observer.broken.result()


async def test_it_fails_when_the_api_server_stays_unreachable(server: ApiServer) -> None:
    """The error names the watch and the reason."""
    server.failures["watch pods"] = LOST
    async with observing(server) as observer:
        await asyncio.sleep(60)

        with pytest.raises(ObservationError, match="watching pods fails: refused"):
            observer.broken.result()


async def test_it_fails_at_an_object_that_does_not_decode(server: ApiServer) -> None:
    """Leaving it out would be a gap in the history."""
    async with observing(server) as observer:
        await asyncio.sleep(1)
        server.put(PODS.plural, "drill/pod-1", metadata={"labels": 7})
        await asyncio.sleep(1)

        with pytest.raises(ObservationError, match="pods were missed"):
            observer.broken.result()


async def test_a_resource_that_cannot_be_listed_fails_at_once(server: ApiServer) -> None:
    """Entering the observer raises the error."""
    server.faults.append(Fault("list", "pods", errors.ForbiddenError(403, "Forbidden", "not you"), commit=False))
    with pytest.raises(ObservationError, match="not you"):
        async with observing(server):
            pytest.fail("nothing was listed")


async def test_it_fails_when_a_condition_raises(server: ApiServer) -> None:
    """Otherwise its caller would wait for ever."""
    async with observing(server) as observer:
        observer.when(lambda picture: not 1 // len(picture.pods))
        server.remove(PODS, "drill/pod-1")
        await asyncio.sleep(1)

        with pytest.raises(ZeroDivisionError):
            observer.broken.result()
