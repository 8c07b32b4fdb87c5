"""The recorder of Events: series, limits, and recording that never waits."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from controller.engine.events import MAX_PENDING, MAX_SERIES, Recorder
from controller.kube import errors
from controller.kube.event import Event
from controller.kube.meta import ObjectMeta
from controller.kube.naming import DNS_SUBDOMAIN, LONGEST_SUBDOMAIN
from controller.kube.resources import EVENTS
from tests.model.rules import Document
from tests.model.server import ApiServer
from tests.unit.engine.builders import settle

pytestmark = pytest.mark.looptime
START = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
STARTED = Event("Normal", "Started", "Start", "The virtual machine runs on node-1")


def vm(name: str = "vm-1") -> ObjectMeta:
    """Return the identity of a VM."""
    return ObjectMeta(name=name, namespace="default", uid=f"uid-{name}")


@dataclass
class Server(ApiServer):
    """The API server; records the times of writes."""

    at: list[float] = field(default_factory=list)

    def _written(self, method: str, plural: str, document: Document) -> None:
        super()._written(method, plural, document)
        assert plural == EVENTS.plural
        self.at.append(asyncio.get_running_loop().time())

    @property
    def events(self) -> dict[str, Document]:
        """The events by their names."""
        return {event["metadata"]["name"]: event for event in self.of(EVENTS)}

    @property
    def counts(self) -> list[int]:
        """The count of each event."""
        return [event.get("series", {}).get("count", 1) for event in self.of(EVENTS)]


@asynccontextmanager
async def recording(server: Server, *, max_series: int = MAX_SERIES) -> AsyncIterator[Recorder]:
    """Run a recorder; its wall clock follows the loop's."""
    clock = asyncio.get_running_loop().time
    recorder = Recorder(
        server,
        api_version="simulation.node-classifier.io/v1alpha1",
        kind="VirtualMachine",
        instance="host-1",
        clock=clock,
        max_series=max_series,
        now=lambda: START + timedelta(seconds=clock()),
    )
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_an_event_has_every_required_field() -> None:
    """Every field that the API requires, and the identity of the VM."""
    server = Server()
    async with recording(server) as recorder:
        recorder.record(vm(), STARTED)
        await settle()
    [event] = server.events.values()
    assert event["regarding"] == {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "namespace": "default",
        "name": "vm-1",
        "uid": "uid-vm-1",
    }
    assert (event["reason"], event["action"], event["type"]) == ("Started", "Start", "Normal")
    assert (event["reportingController"], event["reportingInstance"]) == ("vmsim-controller", "host-1")
    assert event["eventTime"] == "2026-01-15T10:00:00.000000Z"
    assert "series" not in event


async def test_repetitions_become_one_series() -> None:
    """One object, whose count and last time are kept current."""
    server = Server()
    async with recording(server) as recorder:
        for _ in range(5):
            recorder.record(vm(), STARTED)
            await asyncio.sleep(60)
    assert server.counts == [5]
    [event] = server.events.values()
    assert event["series"]["lastObservedTime"] == "2026-01-15T10:04:00.000000Z"


async def test_repetitions_before_the_first_write_cost_one_write() -> None:
    """A burst is one create with its count."""
    server = Server()
    async with recording(server) as recorder:
        for _ in range(100):
            recorder.record(vm(), STARTED)
        await settle()
    assert (server.counts, len(server.at)) == ([100], 1)


async def test_a_repetition_after_six_quiet_minutes_is_a_new_event() -> None:
    """As client-go has it."""
    server = Server()
    async with recording(server) as recorder:
        recorder.record(vm(), STARTED)
        await asyncio.sleep(361)
        recorder.record(vm(), STARTED)
        await settle()
    assert server.counts == [1, 1]


async def test_writes_are_limited_to_fifty_a_second_after_a_burst() -> None:
    """A thousand VMs that start at once leave request capacity to the reconciles."""
    server = Server()
    async with recording(server) as recorder:
        for n in range(700):
            recorder.record(vm(f"vm-{n}"), STARTED)
        await asyncio.sleep(30)
    assert len(server.at) == 700
    assert sum(at < 0.001 for at in server.at) == 200
    assert server.at[-1] == pytest.approx(10, abs=0.1)


async def test_events_beyond_the_bound_are_dropped_and_counted() -> None:
    """Memory is bounded; recording never waits."""
    server = Server()
    async with recording(server) as recorder:
        for n in range(MAX_PENDING + 25):
            recorder.record(vm(f"vm-{n}"), STARTED)
        assert recorder.dropped == 25
        await asyncio.sleep(60)
    assert len(server.events) == MAX_PENDING


async def test_memory_of_series_is_bounded() -> None:
    """The oldest series are evicted first."""
    server = Server()
    async with recording(server, max_series=20) as recorder:
        for n in range(30):
            recorder.record(vm(f"vm-{n}"), STARTED)
            await settle()
        assert [uid for uid, _ in recorder._series] == [f"uid-vm-{n}" for n in range(10, 30)]


async def test_an_expired_series_is_evicted() -> None:
    """A client that creates and deletes VMs all day does not fill the memory."""
    server = Server()
    async with recording(server) as recorder:
        for n in range(30):
            recorder.record(vm(f"vm-{n}"), STARTED)
        await asyncio.sleep(361)
        recorder.record(vm("late"), STARTED)
        assert [uid for uid, _ in recorder._series] == ["uid-late"]


async def test_a_refused_event_is_dropped_and_the_next_one_written() -> None:
    """A namespace that is being deleted accepts no events."""
    server = Server()
    async with recording(server) as recorder:
        server.failures["create events"] = errors.ForbiddenError(403, "Forbidden", "namespace is being terminated")
        recorder.record(vm(), STARTED)
        await settle()
        server.failures.clear()
        recorder.record(vm("vm-2"), STARTED)
        await settle()
    assert recorder.dropped == 1
    assert [event["regarding"]["name"] for event in server.events.values()] == ["vm-2"]


async def test_a_series_that_the_server_expired_starts_again() -> None:
    """Events expire after an hour; the next repetition is a new object."""
    server = Server()
    async with recording(server) as recorder:
        recorder.record(vm(), STARTED)
        await settle()
        for name in server.names(EVENTS):
            server.remove(EVENTS, f"default/{name}")
        recorder.record(vm(), STARTED)
        await settle()
        recorder.record(vm(), STARTED)
        await settle()
    assert server.counts == [1]


async def test_a_long_note_is_cut_to_the_apis_limit() -> None:
    """1 KiB, in whole characters."""
    server = Server()
    async with recording(server) as recorder:
        recorder.record(vm(), dataclasses.replace(STARTED, note="ü" * 2000))
        await settle()
    [event] = server.events.values()
    assert event["note"] == "ü" * 512


@pytest.mark.parametrize("length", [1, 235, 236, 237, 253])
async def test_an_event_has_a_unique_name_however_long_its_objects_name_is(length: int) -> None:
    """Within the API's limit: client-go's name, or else a UUID."""
    server = Server()
    async with recording(server) as recorder:
        for number in range(3):
            recorder.record(vm("x" * length), dataclasses.replace(STARTED, note=str(number)))
        await settle()

    assert len(server.events) == 3
    assert all(len(name) <= LONGEST_SUBDOMAIN and DNS_SUBDOMAIN.fullmatch(name) for name in server.events)
    assert all(name.startswith("x" * length) for name in server.events) == (length <= 236)
