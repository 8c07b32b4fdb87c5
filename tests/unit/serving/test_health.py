"""Liveness fails only where a restart helps; readiness fails while the process cannot reconcile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import pytest

from controller.kube import errors
from controller.serving.health import STALLED, UNATTENDED, Health, LoopMonitor, Queue, Source
from tests.unit.engine.builders import new_queue
from tests.unit.engine.clock import SteppedLoop


async def reachable() -> None:
    """Answer, as an API server that is up."""


async def away() -> None:
    """Fail, as an API server that is down."""
    raise errors.TransportError("connection refused")


def health(
    reach_api: Callable[[], Awaitable[None]] = reachable,
    *,
    monitor: LoopMonitor | None = None,
    ended: Iterable[str] = (),
    sources: Iterable[tuple[str, Source]] = (),
    queues: Mapping[str, Queue] = MappingProxyType({}),
) -> Health:
    """Return the health of a process with these parts."""
    return Health(monitor or LoopMonitor(), reach_api, ended=lambda: ended, sources=sources, queues=queues)


# --- health ----------------------------------------------------------------------------------------------


async def test_a_process_without_problems_is_healthy() -> None:
    """The list of problems is empty."""
    assert health().health() == []


async def test_an_ended_background_task_is_unhealthy() -> None:
    """The problem names it."""
    assert health(ended=["reflector of pods"]).health() == ["task reflector of pods has ended"]


async def test_an_outage_of_the_api_server_is_unready_but_healthy() -> None:
    """A restart would not help."""
    subject = health(away)

    assert await subject.readiness() == ["API server: connection refused"]
    assert subject.health() == []


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    """Return a loop that the test steps."""
    stepped = SteppedLoop()
    yield stepped
    for task in asyncio.all_tasks(stepped):
        task.cancel()
    stepped.settle()
    stepped.close()


def run_for(loop: SteppedLoop, seconds: float) -> None:
    """Advance the clock in small steps."""
    for _ in range(round(seconds / 0.5)):
        loop.advance(0.5)


def monitored(loop: SteppedLoop) -> tuple[LoopMonitor, Health]:
    """Start a monitor, and return it with a health that uses it."""
    monitor = LoopMonitor()
    loop.create_task(monitor.run())
    loop.settle()
    return monitor, health(monitor=monitor)


def test_an_event_loop_without_lag_is_healthy(loop: SteppedLoop) -> None:
    """The lag is 0."""
    monitor, subject = monitored(loop)
    run_for(loop, 60)

    assert monitor.lag == 0
    assert subject.health() == []


def test_an_event_loop_blocked_for_more_than_5_s_is_unhealthy(loop: SteppedLoop) -> None:
    """One blocked for 4 s is not."""
    monitor, subject = monitored(loop)
    loop.advance(5)
    assert monitor.lag == 4
    assert subject.health() == []

    loop.advance(7)
    assert monitor.lag == 6
    assert subject.health() == ["the event loop was blocked for 6.0 s"]


def test_a_blocked_event_loop_stays_unhealthy_for_30_s(loop: SteppedLoop) -> None:
    """A later probe still sees it; then the process is healthy again."""
    _, subject = monitored(loop)
    loop.advance(6.5)

    run_for(loop, 29)
    assert subject.health() != []
    run_for(loop, 2)
    assert subject.health() == []


# --- readiness -------------------------------------------------------------------------------------------


class FakeSource:
    """A reflector's state."""

    def __init__(self, *, connected: bool) -> None:
        self.answered = asyncio.Event()
        self.synced = asyncio.Event()
        self.connected = connected

    def fill(self) -> None:
        """Complete the first list."""
        self.answered.set()
        self.synced.set()


async def test_an_optional_resource_that_may_not_be_read_does_not_block_readiness() -> None:
    """Once the API server has refused it."""
    nodes = FakeSource(connected=False)
    subject = health(sources=[("nodes", nodes)])
    assert await subject.readiness() == ["cache of nodes is not filled yet"]

    nodes.answered.set()
    assert await subject.readiness() == []


async def test_a_broken_watch_is_unready() -> None:
    """A synced cache without a watch is not up to date."""
    pods = FakeSource(connected=False)
    pods.fill()
    subject = health(sources=[("pods", pods)])

    assert await subject.readiness() == ["watch of pods is down"]
    pods.connected = True
    assert await subject.readiness() == []


async def test_an_unsynced_cache_is_unready_and_named() -> None:
    """Each cache by itself."""
    pods, vms = FakeSource(connected=True), FakeSource(connected=True)
    subject = health(sources=[("pods", pods), ("VMs", vms)])

    assert await subject.readiness() == ["cache of pods is not filled yet", "cache of VMs is not filled yet"]
    pods.fill()
    assert await subject.readiness() == ["cache of VMs is not filled yet"]
    vms.fill()
    assert await subject.readiness() == []


class Switch:
    """An API server that a test turns on and off, and that counts requests."""

    def __init__(self) -> None:
        self.on = True
        self.asked = 0

    async def __call__(self) -> None:
        """Answer or fail."""
        self.asked += 1
        if not self.on:
            raise errors.TransportError("connection refused")


@pytest.mark.looptime
async def test_readiness_follows_the_api_server_both_ways() -> None:
    """An outage makes the process unready and its end ready again, each within some 2 s."""
    switch = Switch()
    subject = health(switch)
    assert await subject.readiness() == []

    switch.on = False
    await asyncio.sleep(2.1)
    assert await subject.readiness() == ["API server: connection refused"]

    switch.on = True
    await asyncio.sleep(2.1)
    assert await subject.readiness() == []


@pytest.mark.looptime
async def test_probes_within_2_s_share_one_request() -> None:
    """The API server is not asked for each."""
    switch = Switch()
    subject = health(switch)
    for _ in range(100):
        await subject.readiness()
        await asyncio.sleep(0.1)

    assert 4 <= switch.asked <= 6


@pytest.mark.looptime
async def test_a_process_is_unready_before_the_first_answer_of_the_api_server() -> None:
    """Even for a second probe while the first waits."""
    subject = health(asyncio.Event().wait)  # type: ignore[arg-type]
    first = asyncio.create_task(subject.readiness())
    await asyncio.sleep(1)

    assert await subject.readiness() != []
    first.cancel()


@pytest.mark.looptime
async def test_keys_that_wait_while_all_workers_are_idle_are_unhealthy() -> None:
    """Only a restart brings the workers back."""
    queue = new_queue()
    subject = health(queues={"virtualmachine": queue})
    await asyncio.sleep(1000)
    assert subject.health() == []

    queue.add("a")
    queue.add("b")
    await asyncio.sleep(UNATTENDED)
    assert subject.health() == []
    await asyncio.sleep(1)
    [problem] = subject.health()
    assert problem == "2 keys of virtualmachine wait, and none of 0 busy workers has finished a key for 11 s"

    queue.done(await queue.get())
    assert subject.health() == []


@pytest.mark.looptime
async def test_busy_workers_that_finish_no_key_for_10_minutes_are_unhealthy() -> None:
    """Far longer than a reconcile against an API server that hangs."""
    queue = new_queue()
    subject = health(queues={"virtualmachine": queue})
    queue.add("a")
    queue.add("b")
    await queue.get()
    await asyncio.sleep(STALLED)
    assert subject.health() == []
    await asyncio.sleep(1)
    assert len(subject.health()) == 1

    queue.done("a")
    assert subject.health() == []


@pytest.mark.looptime
async def test_a_slow_worker_is_healthy_while_no_key_waits() -> None:
    """Other workers are free for the next key."""
    queue = new_queue()
    subject = health(queues={"virtualmachine": queue})
    queue.add("a")
    await queue.get()
    await asyncio.sleep(10 * STALLED)

    assert subject.health() == []
