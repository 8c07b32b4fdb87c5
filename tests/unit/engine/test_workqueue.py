"""The workqueue keeps the promises of client-go's."""

from __future__ import annotations

import asyncio

import pytest

from controller.engine.workqueue import QueueMetrics, QueueShutDownError, WorkQueue
from tests.unit.engine.builders import drain, new_queue, seeded, settle

pytestmark = pytest.mark.looptime


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def arrivals(queue: WorkQueue[str], count: int) -> list[tuple[str, float]]:
    """Take so many keys; return each with the seconds after which it arrived."""
    start = now()
    found = []
    for _ in range(count):
        key = await queue.get()
        found.append((key, round(now() - start, 4)))
        queue.done(key)
    return found


async def test_keys_come_out_in_the_order_they_were_added() -> None:
    """Fair: first in, first out."""
    queue = new_queue()
    for key in ("c", "a", "b"):
        queue.add(key)

    assert await drain(queue) == ["c", "a", "b"]


async def test_adds_of_a_waiting_key_collapse() -> None:
    """A key added three times before a worker takes it comes out once, at its first place."""
    queue = new_queue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)

    assert await drain(queue) == ["a", "b"]


async def test_a_key_added_while_processed_comes_once_more_after_done() -> None:
    """It is not handed out a second time before the first worker gives it back."""
    queue = new_queue()
    queue.add("a")
    assert await queue.get() == "a"

    queue.add("a")
    assert len(queue) == 0
    queue.done("a")

    assert await drain(queue) == ["a"]


async def test_adds_of_a_key_while_processed_collapse() -> None:
    """However often it was added meanwhile, it comes once more."""
    queue = new_queue()
    queue.add("a")
    await queue.get()
    for _ in range(5):
        queue.add("a")
    queue.done("a")

    assert await drain(queue) == ["a"]


async def test_a_key_added_while_processed_queues_behind_the_others() -> None:
    """Its place is that of `done`, so a busy key starves no other."""
    queue = new_queue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b")
    queue.done("a")

    assert await drain(queue) == ["b", "a"]


async def test_a_key_may_be_added_again_after_done() -> None:
    """A key that was processed is an ordinary new key."""
    queue = new_queue()
    queue.add("a")
    assert await drain(queue) == ["a"]

    queue.add("a")

    assert await drain(queue) == ["a"]


async def test_done_without_another_add_leaves_nothing() -> None:
    """A key that was processed does not come back by itself."""
    queue = new_queue()
    queue.add("a")
    await drain(queue)
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(3600)

    assert not getter.done()
    getter.cancel()


async def test_no_key_is_ever_with_two_workers() -> None:
    """Eight workers, four keys and 600 adds at random times: each key has one worker, and the last add is processed."""
    queue = new_queue()
    rng = seeded(7)
    in_progress: set[str] = set()
    added: dict[str, float] = {}
    begun: dict[str, float] = {}

    async def work() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueShutDownError:
                return
            assert key not in in_progress
            in_progress.add(key)
            begun[key] = now()
            await asyncio.sleep(rng.random())
            in_progress.remove(key)
            queue.done(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())
        for _ in range(600):
            key = rng.choice("abcd")
            queue.add(key)
            added[key] = now()
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random())
        queue.shut_down()

    assert begun.keys() == set("abcd")
    assert all(begun[key] >= added[key] for key in added)


async def test_a_shut_down_queue_refuses_adds_of_every_kind() -> None:
    """No key is added after the shutdown, now or later."""
    queue = new_queue()
    queue.shut_down()

    queue.add("a")
    queue.add_after("b", 1)
    queue.add_rate_limited("c")
    await asyncio.sleep(3600)

    assert len(queue) == 0
    with pytest.raises(QueueShutDownError):
        await queue.get()


async def test_a_shut_down_queue_hands_out_its_keys_and_then_raises() -> None:
    """Workers get the queued keys before the error."""
    queue = new_queue()
    queue.add("a")
    queue.add("b")
    queue.shut_down()

    assert await drain(queue) == ["a", "b"]
    for _ in range(2):
        with pytest.raises(QueueShutDownError):
            await queue.get()


async def test_shutdown_wakes_every_waiting_getter() -> None:
    """No worker waits for ever."""
    queue = new_queue()
    getters = [asyncio.create_task(queue.get()) for _ in range(5)]
    await settle()

    queue.shut_down()

    found = await asyncio.gather(*getters, return_exceptions=True)
    assert [type(error) for error in found] == [QueueShutDownError] * 5


async def test_a_key_added_while_processed_survives_shutdown() -> None:
    """An add from before the shutdown is processed; one from after it is refused."""
    queue = new_queue()
    queue.add("before")
    queue.add("after")
    await queue.get()
    await queue.get()
    queue.add("before")
    queue.shut_down()
    queue.add("after")
    queue.done("before")
    queue.done("after")

    assert await drain(queue) == ["before"]


async def test_shutting_down_twice_is_harmless() -> None:
    """The second shutdown changes nothing."""
    queue = new_queue()
    queue.add("a")
    queue.shut_down()
    queue.shut_down()

    assert await drain(queue) == ["a"]


async def test_drain_returns_at_once_when_nothing_is_queued_or_processed() -> None:
    """An idle queue has nothing to wait for."""
    queue = new_queue()
    queue.add("a")
    await drain(queue)

    await asyncio.wait_for(queue.shut_down_with_drain(), 1)


async def test_drain_waits_for_keys_with_workers_and_for_queued_ones() -> None:
    """It returns only when workers have given back every key, those added while processed included."""
    queue = new_queue()
    queue.add("a")
    queue.add("b")
    await queue.get()
    queue.add("a")
    drained = asyncio.create_task(queue.shut_down_with_drain())
    await settle()
    assert not drained.done()

    queue.done("a")
    for key in ("b", "a"):
        assert await queue.get() == key
        await settle()
        assert not drained.done()
        queue.done(key)

    await asyncio.wait_for(drained, 1)


async def test_a_delayed_add_queues_the_key_after_its_delay() -> None:
    """Not before, and hardly after."""
    queue = new_queue()
    queue.add_after("later", 60)
    queue.add_after("sooner", 1.5)

    assert await arrivals(queue, 2) == [("sooner", 1.5), ("later", 60)]


@pytest.mark.parametrize("delays", [(5, 60), (60, 5)], ids=["earlier first", "later first"])
async def test_a_key_that_is_delayed_twice_comes_once_at_the_earlier_time(delays: tuple[float, float]) -> None:
    """Of two delays the earlier counts, in whichever order they were asked for."""
    queue = new_queue()
    for delay in delays:
        queue.add_after("a", delay)
    queue.add_after("end", 3600)

    assert await arrivals(queue, 2) == [("a", 5), ("end", 3600)]


@pytest.mark.parametrize("delay", [0, -1])
async def test_no_delay_means_now(delay: float) -> None:
    """A delay of zero, or less, queues the key at once."""
    queue = new_queue()
    queue.add_after("a", delay)

    assert await drain(queue) == ["a"]


async def test_shutdown_drops_delayed_adds() -> None:
    """A key whose timer has not fired is not processed."""
    queue = new_queue()
    queue.add_after("a", 5)
    queue.shut_down()
    await asyncio.sleep(10)

    assert len(queue) == 0


async def test_an_add_now_leaves_a_delayed_add_in_place() -> None:
    """A periodic requeue happens even if an event brings the key earlier."""
    queue = new_queue()
    queue.add_after("a", 5)
    queue.add("a")

    assert await arrivals(queue, 2) == [("a", 0), ("a", 5)]


async def test_a_delayed_add_can_be_dropped() -> None:
    """The key may be delayed again, to a later time than before."""
    queue = new_queue()
    queue.add_after("a", 5)
    queue.drop_delayed("a")
    queue.add_after("a", 60)

    assert await arrivals(queue, 1) == [("a", 60)]


async def test_dropping_a_delayed_add_leaves_a_queued_key_queued() -> None:
    """Dropping a delay that does not exist is harmless."""
    queue = new_queue()
    queue.add("a")
    queue.drop_delayed("a")

    assert await drain(queue) == ["a"]


async def test_a_timer_that_fires_while_its_key_is_processed_waits_for_done() -> None:
    """A timer, too, never gives a key to two workers."""
    queue = new_queue()
    queue.add("a")
    await queue.get()
    queue.add_after("a", 5)
    await asyncio.sleep(10)
    assert len(queue) == 0

    queue.done("a")

    assert await drain(queue) == ["a"]


async def test_a_rate_limited_key_waits_twice_as_long_each_time_until_forgotten() -> None:
    """5, 10, 20, 40 ms; 5 ms again after success."""
    queue = new_queue()
    waits = []
    for failed in (True, True, True, True, False):
        queue.add_rate_limited("a")
        [(_, waited)] = await arrivals(queue, 1)
        waits.append(waited)
        if queue.failures("a") == 4 and failed:
            queue.forget("a")

    assert waits == [0.005, 0.010, 0.020, 0.040, 0.005]


async def test_many_failures_at_once_spread_over_the_bucket() -> None:
    """Of 300 keys that fail together 100 come at once and the rest at ten a second."""
    queue = new_queue()
    for number in range(300):
        queue.add_rate_limited(str(number))

    await asyncio.sleep(1.05)
    assert len(queue) == 110
    await asyncio.sleep(9)
    assert len(queue) == 200
    await asyncio.sleep(10)
    assert len(queue) == 300


async def test_a_burst_of_new_keys_is_not_slowed() -> None:
    """The bucket is for retries only: 1,000 plain adds take no time."""
    queue = new_queue()
    start = now()
    for number in range(1000):
        queue.add(str(number))

    assert await drain(queue) == [str(number) for number in range(1000)]
    assert now() == start


async def test_a_getter_cancelled_while_it_waits_loses_no_key() -> None:
    """The key goes to the next getter."""
    queue = new_queue()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await settle()
    first.cancel()
    await settle()

    queue.add("a")

    assert await asyncio.wait_for(second, 1) == "a"


async def test_a_getter_cancelled_just_after_its_wake_up_loses_no_key() -> None:
    """It wakes the next getter in its place."""
    queue = new_queue()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await settle()

    queue.add("a")
    first.cancel()

    assert await asyncio.wait_for(second, 1) == "a"
    assert first.cancelled()


async def test_a_key_stays_queued_when_its_only_getter_is_cancelled() -> None:
    """The next getter takes it."""
    queue = new_queue()
    getter = asyncio.create_task(queue.get())
    await settle()
    queue.add("a")
    getter.cancel()
    await settle()

    assert await drain(queue) == ["a"]


class Written(QueueMetrics):
    """Records the metrics of the queue."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def added(self, depth: int) -> None:
        """Write the depth."""
        self.lines.append(f"added depth={depth}")

    def taken(self, depth: int, waited: float) -> None:
        """Write the depth and the wait."""
        self.lines.append(f"taken depth={depth} waited={waited:.3g}")

    def finished(self, worked: float) -> None:
        """Write the work."""
        self.lines.append(f"finished worked={worked:.3g}")

    def retried(self) -> None:
        """Write it."""
        self.lines.append("retried")


async def test_metrics_report_depth_waits_work_and_retries() -> None:
    """The wait counts from the first add, the work from the hand-out; a collapsed add is not reported."""
    metrics = Written()
    queue = new_queue(metrics)
    queue.add("a")
    await asyncio.sleep(1)
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(2)
    await queue.get()
    await asyncio.sleep(4)
    queue.done("a")
    queue.add_after("c", 8)

    assert metrics.lines == [
        "added depth=1",
        "added depth=2",
        "taken depth=1 waited=3",
        "finished worked=4",
        "retried",
    ]


async def test_a_key_added_while_processed_waits_from_that_add() -> None:
    """Its wait includes the work before it, and its add is counted when it is queued."""
    metrics = Written()
    queue = new_queue(metrics)
    queue.add("a")
    await queue.get()
    queue.add("a")
    await asyncio.sleep(4)
    queue.done("a")
    await queue.get()

    assert metrics.lines == [
        "added depth=1",
        "taken depth=0 waited=0",
        "finished worked=4",
        "added depth=1",
        "taken depth=0 waited=4",
    ]


async def test_processing_yields_the_age_of_each_key_with_a_worker() -> None:
    """In seconds since the worker took the key."""
    queue = new_queue()
    queue.add("a")
    queue.add("b")
    await queue.get()
    await asyncio.sleep(3)
    await queue.get()
    await asyncio.sleep(2)

    assert sorted(queue.processing()) == pytest.approx([2, 5])


async def test_a_worker_gets_the_first_cause_of_its_key() -> None:
    """For the log: later adds of a queued key are the same work."""
    queue = new_queue()
    queue.add("a", "VM changed")
    queue.add("a", "pod changed")
    assert queue.cause(await queue.get()) == "VM changed"


async def test_the_cause_of_a_key_with_a_worker_is_that_of_its_add() -> None:
    """Adds meanwhile set the cause of the next round; timers and retries have causes of their own."""
    queue = new_queue()
    queue.add("a", "spec changed")
    queue.add("a", "pod changed")
    await queue.get()
    queue.add("a", "pod gone")
    assert queue.cause("a") == "spec changed"
    queue.done("a")

    await queue.get()
    assert queue.cause("a") == "pod gone"
    queue.done("a")

    causes = []
    queue.add_after("a", 5)
    queue.add_after("b", 6, "lease over")
    queue.add_rate_limited("c")
    for _ in range(3):
        key = await queue.get()
        causes.append((key, queue.cause(key)))
    assert causes == [("c", "retry"), ("a", "timer"), ("b", "lease over")]


async def test_the_earlier_of_two_delays_brings_its_own_cause() -> None:
    """In whichever order they were asked for."""
    queue = new_queue()
    queue.add_after("a", 60, "late")
    queue.add_after("a", 5, "early")
    queue.add_after("b", 5, "early")
    queue.add_after("b", 60, "late")

    found = [queue.cause(key) for key in [await queue.get(), await queue.get()]]

    assert found == ["early", "early"]


async def test_a_queue_is_stalled_while_keys_wait_and_no_worker_takes_or_returns_one() -> None:
    """A queue without waiting keys is not stalled."""
    queue = new_queue()
    await asyncio.sleep(100)
    assert queue.stalled() == 0
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(3)
    assert queue.stalled() == 3

    key = await queue.get()
    await asyncio.sleep(2)
    assert queue.stalled() == 2
    queue.done(key)
    assert queue.stalled() == 0
    await asyncio.sleep(1)
    assert queue.stalled() == 1
    queue.done(await queue.get())
    await asyncio.sleep(100)
    assert queue.stalled() == 0


@pytest.mark.parametrize("earlier", [0.05, 5.0, 29.0])
async def test_at_least_of_a_failure_overrides_an_earlier_timer(earlier: float) -> None:
    """Such as a server's Retry-After. Later delays cannot undercut it either."""
    queue = new_queue()
    queue.add_after("a", earlier)
    queue.add_rate_limited("a", at_least=30)
    queue.add_after("a", 1)
    queue.add_rate_limited("a", at_least=2)
    began = asyncio.get_running_loop().time()
    await queue.get()

    assert asyncio.get_running_loop().time() - began == 30


async def test_an_add_ignores_at_least_and_a_success_drops_it() -> None:
    """An add reports a change, which may resolve the failure."""
    queue = new_queue()
    queue.add_rate_limited("a", at_least=30)
    queue.add("a")
    assert await queue.get() == "a"
    queue.drop_delayed("a")
    queue.done("a")
    queue.add_after("a", 5)
    began = asyncio.get_running_loop().time()
    await queue.get()

    assert asyncio.get_running_loop().time() - began == 5
