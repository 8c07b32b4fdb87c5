"""Health asks for a restart only where a restart helps."""

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
    """Be an API server that is there."""


async def away() -> None:
    """Be an API server that is not."""
    raise errors.TransportError("connection refused")


def health(
    reach_api: Callable[[], Awaitable[None]] = reachable,
    *,
    monitor: LoopMonitor | None = None,
    ended: Iterable[str] = (),
    sources: Iterable[tuple[str, Source]] = (),
    queues: Mapping[str, Queue] = MappingProxyType({}),
) -> Health:
    """Return the health of a process of which these are the parts."""
    return Health(monitor or LoopMonitor(), reach_api, ended=lambda: ended, sources=sources, queues=queues)


# --- health ----------------------------------------------------------------------------------------------


async def test_living_tasks_are_healthy() -> None:
    """Nothing is wrong, so nothing is said."""
    assert health().health() == []


async def test_a_task_that_ended_is_named() -> None:
    """It should live as long as the process."""
    assert health(ended=["reflector of pods"]).health() == ["task reflector of pods has ended"]


async def test_an_outage_of_the_api_server_is_no_matter_of_health() -> None:
    """No restart brings it back: unready, but healthy."""
    subject = health(away)

    assert await subject.readiness() == ["API server: connection refused"]
    assert subject.health() == []


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    """Return a loop that this test steps."""
    stepped = SteppedLoop()
    yield stepped
    for task in asyncio.all_tasks(stepped):
        task.cancel()
    stepped.settle()
    stepped.close()


def run_for(loop: SteppedLoop, seconds: float) -> None:
    """Let time pass smoothly."""
    for _ in range(round(seconds / 0.5)):
        loop.advance(0.5)


def monitored(loop: SteppedLoop) -> tuple[LoopMonitor, Health]:
    """Start a monitor, and return it with a health that asks it."""
    monitor = LoopMonitor()
    loop.create_task(monitor.run())
    loop.settle()
    return monitor, health(monitor=monitor)


def test_a_loop_that_runs_smoothly_is_healthy(loop: SteppedLoop) -> None:
    """Its lag is nothing."""
    monitor, subject = monitored(loop)
    run_for(loop, 60)

    assert monitor.lag == 0
    assert subject.health() == []


def test_a_loop_that_stands_still_too_long_is_unhealthy(loop: SteppedLoop) -> None:
    """More than 5 s without a turn is a hang; 4 s are not."""
    monitor, subject = monitored(loop)
    loop.advance(5)
    assert monitor.lag == 4
    assert subject.health() == []

    loop.advance(7)
    assert monitor.lag == 6
    assert subject.health() == ["the event loop was blocked for 6.0 s"]


def test_a_hang_is_remembered_for_half_a_minute(loop: SteppedLoop) -> None:
    """A probe that comes later still sees it; then the process is healthy again."""
    _, subject = monitored(loop)
    loop.advance(6.5)

    run_for(loop, 29)
    assert subject.health() != []
    run_for(loop, 2)
    assert subject.health() == []


# --- readiness -------------------------------------------------------------------------------------------


class FakeSource:
    """What fills a cache."""

    def __init__(self, *, connected: bool) -> None:
        self.answered = asyncio.Event()
        self.synced = asyncio.Event()
        self.connected = connected

    def fill(self) -> None:
        """Take a first list."""
        self.answered.set()
        self.synced.set()


async def test_what_may_not_be_read_is_done_without() -> None:
    """A cache that will stay empty keeps nobody from being ready, once that is known."""
    nodes = FakeSource(connected=False)
    subject = health(sources=[("nodes", nodes)])
    assert await subject.readiness() == ["cache of nodes is not filled yet"]

    nodes.answered.set()
    assert await subject.readiness() == []


async def test_a_watch_that_is_down_makes_unready() -> None:
    """A full cache that gets no news is not up to date."""
    pods = FakeSource(connected=False)
    pods.fill()
    subject = health(sources=[("pods", pods)])

    assert await subject.readiness() == ["watch of pods is down"]
    pods.connected = True
    assert await subject.readiness() == []


async def test_unfilled_caches_are_named_until_they_are_filled() -> None:
    """Each by itself."""
    pods, vms = FakeSource(connected=True), FakeSource(connected=True)
    subject = health(sources=[("pods", pods), ("VMs", vms)])

    assert await subject.readiness() == ["cache of pods is not filled yet", "cache of VMs is not filled yet"]
    pods.fill()
    assert await subject.readiness() == ["cache of VMs is not filled yet"]
    vms.fill()
    assert await subject.readiness() == []


class Switch:
    """An API server that a test turns on and off, and that counts who asks."""

    def __init__(self) -> None:
        self.on = True
        self.asked = 0

    async def __call__(self) -> None:
        """Answer, or not."""
        self.asked += 1
        if not self.on:
            raise errors.TransportError("connection refused")


@pytest.mark.looptime
async def test_readiness_follows_the_api_server_both_ways() -> None:
    """An outage makes the process unready, its end ready again, each within some 2 s."""
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
async def test_many_probes_do_not_burden_the_api_server() -> None:
    """Within 2 s they share one answer."""
    switch = Switch()
    subject = health(switch)
    for _ in range(100):
        await subject.readiness()
        await asyncio.sleep(0.1)

    assert 4 <= switch.asked <= 6


@pytest.mark.looptime
async def test_nobody_is_told_ready_before_the_api_server_first_answered() -> None:
    """While the first probe waits for a server that hangs, the second is not told that all is well."""
    subject = health(asyncio.Event().wait)  # type: ignore[arg-type]
    first = asyncio.create_task(subject.readiness())
    await asyncio.sleep(1)

    assert await subject.readiness() != []
    first.cancel()


@pytest.mark.looptime
async def test_keys_that_wait_while_nobody_works_are_unhealthy() -> None:
    """Whatever became of the workers: only a restart brings them back."""
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
async def test_workers_that_finish_nothing_are_unhealthy_after_a_long_time() -> None:
    """Far beyond what an API server that hangs can cost a reconcile."""
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
async def test_a_worker_that_is_long_at_work_while_no_key_waits_is_healthy() -> None:
    """The others would take one."""
    queue = new_queue()
    subject = health(queues={"virtualmachine": queue})
    queue.add("a")
    await queue.get()
    await asyncio.sleep(10 * STALLED)

    assert subject.health() == []
