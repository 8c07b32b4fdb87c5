"""Workers reconcile every key, survive every failure, and stop when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

import pytest
import structlog

from controller.engine.lifecycle import ControllerDiedError
from controller.engine.workers import CONFLICT_DELAY, Outcome, Result, WorkerEndedError, Workers
from controller.engine.workqueue import QueueShutDownError, WorkQueue
from controller.kube import errors
from tests.unit.engine.builders import RunningWorkers, new_queue, settle

pytestmark = pytest.mark.looptime

Step = Result | Exception | float
"""What a reconcile does: return, raise, or take seconds and return success."""


class Board:
    """Records the metrics of the workers."""

    def __init__(self) -> None:
        self.active = 0
        self.outcomes: list[tuple[Outcome, float]] = []

    def started(self) -> None:
        """Count one more at work."""
        self.active += 1

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Count one less, and write how it ended."""
        self.active -= 1
        self.outcomes.append((outcome, round(seconds, 3)))


class Shop:
    """Workers whose reconcile plays a script for each key; after the script every reconcile succeeds."""

    def __init__(self, count: int = 1, **scripts: list[Step]) -> None:
        self.queue: WorkQueue[str] = new_queue()
        self.board = Board()
        self.scripts = scripts
        self.begun: list[tuple[str, float]] = []
        self.ended: list[str] = []
        self.workers = Workers(self.queue, self.reconcile, noun="vm", count=count, metrics=self.board)
        self.running = RunningWorkers(self.workers)

    async def reconcile(self, key: str) -> Result:
        """Play the key's next step."""
        self.begun.append((key, round(asyncio.get_running_loop().time() - self._start(), 3)))
        steps = self.scripts.get(key, [])
        step = steps.pop(0) if steps else Result()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
            step = Result()
        self.ended.append(key)
        return step

    def _start(self) -> float:
        if not hasattr(self, "_began"):
            self._began = asyncio.get_running_loop().time()
        return self._began

    async def close(self) -> None:
        """End the workers."""
        await self.running.abandon()


def conflict() -> errors.ConflictError:
    """Return the error of a guarded write after another client's."""
    return errors.ConflictError(409, "Conflict", "another client wrote first")


FAILURES: list[Callable[[], Exception]] = [
    lambda: errors.TransportError("reset"),
    lambda: errors.ServerError(500, "InternalError", "no"),
    lambda: ZeroDivisionError("a defect"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=["transport", "server", "defect"])
async def test_a_failed_key_is_requeued_with_backoff(failure: Callable[[], Exception]) -> None:
    """After 5, 10 and 20 ms, for every type of exception; a success resets the count."""
    shop = Shop(a=[failure(), failure(), failure()])
    shop.queue.add("a")
    await asyncio.sleep(3600)

    assert shop.begun == [("a", 0), ("a", 0.005), ("a", 0.015), ("a", 0.035)]
    assert [outcome for outcome, _ in shop.board.outcomes] == [Outcome.ERROR] * 3 + [Outcome.SUCCESS]
    assert shop.queue.failures("a") == 0
    await shop.close()


@pytest.mark.parametrize(("wanted", "waited"), [(7.0, 7.0), (86400.0, 300.0), (None, 0.005)])
async def test_retry_after_is_a_bounded_floor_of_the_backoff(wanted: float | None, waited: float) -> None:
    """A Retry-After of a day is cut to LONGEST_FLOOR."""
    busy = errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=wanted)
    shop = Shop(a=[busy])
    shop.queue.add("a")
    await asyncio.sleep(3600)

    assert shop.begun == [("a", 0), ("a", waited)]
    await shop.close()


async def test_a_key_waits_for_the_watch_event_after_a_conflict() -> None:
    """A retry before the event would conflict again. Each conflict counts as a failure."""
    shop = Shop(a=[conflict(), conflict()])
    shop.queue.add("a")
    await asyncio.sleep(0.2)
    shop.queue.add("a", "VM changed")
    await asyncio.sleep(3600)

    assert shop.begun[:3] == [("a", 0), ("a", 0.2), ("a", 0.2 + CONFLICT_DELAY)]
    await shop.close()


async def test_a_conflict_is_logged_for_debugging_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Another KubeError is a warning, and a defect is logged with its traceback."""
    shop = Shop(a=[conflict()], b=[errors.TransportError("reset")], c=[ZeroDivisionError("a defect")])
    for key in "abc":
        shop.queue.add(key)
    await asyncio.sleep(0.5)
    conflict_line, failure_line, defect_line = capsys.readouterr().out.splitlines()

    assert "level=debug" in conflict_line
    assert {"attempt=1", "cause=added"} <= set(conflict_line.split())
    assert "vm=a" in conflict_line
    assert "level=warning" in failure_line
    assert "vm=b" in failure_line
    assert "level=error" in defect_line
    assert "vm=c" in defect_line
    assert "ZeroDivisionError: a defect" in defect_line
    await shop.close()


async def test_log_lines_of_a_reconcile_carry_its_key_attempt_and_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """Log lines after the reconcile carry none of them."""
    log = structlog.get_logger()

    async def reconcile(key: str) -> Result:
        await asyncio.sleep(1)
        log.info("within", of=key)
        return Result(retry=True) if key == "a" else Result()

    queue = new_queue()
    workers = Workers(queue, reconcile, noun="vm", count=2, metrics=Board())
    running = RunningWorkers(workers)
    queue.add("a", "spec changed")
    queue.add("b", "pod changed")
    await asyncio.sleep(2.5)
    await running.abandon()
    log.info("after")

    first, second, third, after = capsys.readouterr().out.splitlines()
    assert all(part in first for part in ("of=a", "vm=a", "attempt=1", 'cause="spec changed"'))
    assert all(part in second for part in ("of=b", "vm=b", "attempt=1", 'cause="pod changed"'))
    assert all(part in third for part in ("of=a", "vm=a", "attempt=2", "cause=retry"))
    assert "vm=" not in after


async def test_an_unexpected_exception_ends_no_worker() -> None:
    """The only worker takes the next key."""
    shop = Shop(a=[ZeroDivisionError("a defect")])
    shop.queue.add("a")
    shop.queue.add("b")
    await asyncio.sleep(1)

    assert shop.ended == ["b", "a"]
    assert not shop.running.task.done()
    await shop.close()


async def test_requeue_after_requeues_the_key_after_its_delay() -> None:
    """It counts as no failure, and resets the count of failures."""
    shop = Shop(a=[errors.TransportError("reset"), Result(requeue_after=60)])
    shop.queue.add("a")
    await asyncio.sleep(30)
    assert shop.queue.failures("a") == 0
    await asyncio.sleep(3600)

    assert shop.begun == [("a", 0), ("a", 0.005), ("a", 60.005)]
    assert [outcome for outcome, _ in shop.board.outcomes] == [Outcome.ERROR, Outcome.REQUEUE_AFTER, Outcome.SUCCESS]
    await shop.close()


@pytest.mark.parametrize(
    ("newest", "looks"),
    [(Result(), [0, 10]), (Result(requeue_after=100), [0, 10, 110]), (Result(requeue_after=20), [0, 10, 30])],
    ids=["not at all", "later", "earlier"],
)
async def test_only_the_newest_reconcile_sets_the_requeue_time(newest: Result, looks: list[float]) -> None:
    """The delay that an earlier reconcile asked for is dropped."""
    shop = Shop(a=[Result(requeue_after=60), newest])
    shop.queue.add("a")
    await asyncio.sleep(10)
    shop.queue.add("a")
    await asyncio.sleep(3600)

    assert shop.begun == [("a", at) for at in looks]
    await shop.close()


async def test_retry_requeues_the_key_with_its_own_backoff() -> None:
    """It is reported as no error, but the delays grow."""
    shop = Shop(a=[Result(retry=True), Result(retry=True), Result(retry=True)])
    shop.queue.add("a")
    await asyncio.sleep(3600)

    assert shop.begun == [("a", 0), ("a", 0.005), ("a", 0.015), ("a", 0.035)]
    assert [outcome for outcome, _ in shop.board.outcomes] == [Outcome.REQUEUE] * 3 + [Outcome.SUCCESS]
    assert shop.queue.failures("a") == 0
    await shop.close()


async def test_a_key_is_not_requeued_after_a_success() -> None:
    """No other reconcile follows."""
    shop = Shop()
    shop.queue.add("a")
    await asyncio.sleep(3600)

    assert shop.begun == [("a", 0)]
    await shop.close()


async def test_metrics_report_outcomes_durations_and_busy_workers() -> None:
    """The duration is that of the reconcile alone."""
    shop = Shop(2, a=[5.0], b=[2.0])
    shop.queue.add("a")
    shop.queue.add("b")
    await asyncio.sleep(1)
    assert shop.board.active == 2
    await asyncio.sleep(3)
    assert shop.board.active == 1
    await asyncio.sleep(3)

    assert shop.board.active == 0
    assert shop.board.outcomes == [(Outcome.SUCCESS, 2), (Outcome.SUCCESS, 5)]
    await shop.close()


async def test_keys_are_reconciled_concurrently_but_never_one_key_twice() -> None:
    """Four workers reconcile four keys at once; a key that is added meanwhile waits for its own reconcile."""
    in_progress: set[str] = set()
    most = 0

    async def reconcile(key: str) -> Result:
        nonlocal most
        assert key not in in_progress
        in_progress.add(key)
        most = max(most, len(in_progress))
        await asyncio.sleep(1)
        in_progress.remove(key)
        return Result()

    board = Board()
    workers = Workers(queue := new_queue(), reconcile, noun="vm", count=4, metrics=board)
    running = RunningWorkers(workers)
    for _ in range(40):
        for key in "abcdef":
            queue.add(key)
        await asyncio.sleep(0.25)
    await asyncio.sleep(60)

    assert most == 4
    assert {outcome for outcome, _ in board.outcomes} == {Outcome.SUCCESS}
    await running.abandon()


async def test_drain_finishes_reconciles_in_progress_and_takes_no_new_keys() -> None:
    """Queued keys are left to the next process."""
    shop = Shop(2, a=[5.0], b=[7.0])
    for key in "abcd":
        shop.queue.add(key)
    await asyncio.sleep(1)

    await shop.running.stop()

    assert sorted(shop.ended) == ["a", "b"]
    assert [key for key, _ in shop.begun] == ["a", "b"]
    assert asyncio.get_running_loop().time() - shop._began == pytest.approx(7, abs=0.01)
    assert all(task.done() for task in shop.workers._tasks)


async def test_stop_cancels_reconciles_in_progress_at_the_deadline() -> None:
    """The keys of cancelled reconciles are given back."""
    shop = Shop(2, a=[3600.0], b=[1.0])
    shop.queue.add("a")
    shop.queue.add("b")
    await asyncio.sleep(0.5)
    begun = asyncio.get_running_loop().time()

    await shop.running.stop()

    assert asyncio.get_running_loop().time() - begun == pytest.approx(10, abs=0.01)
    assert shop.ended == ["b"]
    assert shop.board.active == 0
    assert list(shop.queue.processing()) == []


async def test_stop_wakes_workers_that_wait_for_a_key() -> None:
    """Idle workers end at once, not at the deadline."""
    shop = Shop(3)
    await settle()
    begun = asyncio.get_running_loop().time()

    await shop.running.stop()

    assert asyncio.get_running_loop().time() - begun < 1
    assert all(task.done() and not task.cancelled() for task in shop.workers._tasks)
    with pytest.raises(QueueShutDownError):
        await shop.queue.get()


async def test_stop_before_start_is_harmless() -> None:
    """A process that is stopped before its caches have synced has no workers yet."""
    workers = Workers(new_queue(), Shop().reconcile, noun="vm", count=1, metrics=Board())

    await asyncio.wait_for(workers.drain(), 1)


async def test_a_key_that_fails_during_the_drain_is_not_retried() -> None:
    """The next process reconciles it."""
    begun = []

    async def reconcile(key: str) -> Result:
        begun.append(key)
        await asyncio.sleep(5)
        raise errors.TransportError("reset")

    queue = new_queue()
    workers = Workers(queue, reconcile, noun="vm", count=2, metrics=Board())
    running = RunningWorkers(workers)
    queue.add("a")
    await asyncio.sleep(1)

    await running.stop()
    await asyncio.sleep(3600)

    assert begun == ["a"]
    assert len(queue) == 0


# --- what a worker survives besides ----------------------------------------------------------------------


async def test_a_cancellation_within_a_reconcile_requeues_the_key_and_ends_no_worker() -> None:
    """Something that the reconcile awaited was cancelled, not the worker."""
    begun: list[str] = []

    async def reconcile(key: str) -> Result:
        begun.append(key)
        if begun == ["a"]:
            raise asyncio.CancelledError
        return Result()

    queue = new_queue()
    workers = Workers(queue, reconcile, noun="vm", count=1, metrics=Board())
    running = RunningWorkers(workers)
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(5)

    assert begun == ["a", "b", "a"]
    assert not running.task.done()
    await running.abandon()


@pytest.mark.parametrize("part", ["started", "finished", "log"])
async def test_a_failure_of_logging_or_metrics_requeues_the_key_and_ends_no_worker(part: str) -> None:
    """Otherwise all workers would end, and keys would wait for ever."""
    broken = [OSError(28, "No space left on device")]

    def fail(*_: object) -> None:
        if broken:
            raise broken.pop()

    board, begun = Board(), []

    async def reconcile(key: str) -> Result:
        begun.append(key)
        if broken and part == "log":
            raise ZeroDivisionError
        return Result()

    def log(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fail()
        return event

    if part == "log":
        structlog.configure(processors=[log, structlog.processors.KeyValueRenderer()], cache_logger_on_first_use=False)
    else:
        setattr(board, part, fail)
    queue = new_queue()
    workers = Workers(queue, reconcile, noun="vm", count=1, metrics=board)
    running = RunningWorkers(workers)
    queue.add("a")
    await asyncio.sleep(5)
    structlog.reset_defaults()

    assert begun[-1] == "a"
    assert not running.task.done()
    assert (broken, queue.failures("a"), list(queue.processing())) == ([], 0, [])
    await running.abandon()


# --- workers that end ------------------------------------------------------------------------------------


def worker_tasks() -> dict[str, asyncio.Task[Any]]:
    """Return the worker tasks that are running."""
    return {task.get_name(): task for task in asyncio.all_tasks() if task.get_name().startswith("worker-")}


async def test_there_is_a_task_for_each_worker() -> None:
    """They run until they are stopped."""
    shop = Shop(3)
    await asyncio.sleep(3600)
    assert sorted(worker_tasks()) == ["worker-0", "worker-1", "worker-2"]
    await shop.close()
    assert worker_tasks() == {}


async def test_run_raises_when_a_worker_is_cancelled() -> None:
    """The error names the worker; the other workers are cancelled."""
    shop = Shop(3)
    await settle()
    worker_tasks()["worker-1"].cancel()

    with pytest.raises(ControllerDiedError, match="task workers has ended: WorkerEndedError: worker-1 was cancelled"):
        await shop.running.task
    assert worker_tasks() == {}


async def test_run_raises_when_a_worker_fails() -> None:
    """The worker's exception is the cause."""
    shop = Shop(2)
    await settle()

    def defect(key: str) -> None:
        raise ZeroDivisionError(key)

    shop.queue.done = defect  # type: ignore[method-assign]
    shop.queue.add("a")
    cause = r"WorkerEndedError: worker-\d ended: ZeroDivisionError\('a'\)"
    with pytest.raises(ControllerDiedError, match=f"task workers has ended: {cause}") as died:
        await shop.running.task
    assert isinstance(died.value.__cause__, WorkerEndedError)
    assert isinstance(died.value.__cause__.__cause__, ZeroDivisionError)


async def test_a_worker_that_ignores_cancellation_is_logged_and_abandoned(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of another worker is reported all the same."""
    over = asyncio.Event()

    async def reconcile(_: str) -> Result:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return Result()

    queue = new_queue()
    running = RunningWorkers(Workers(queue, reconcile, noun="vm", count=2, metrics=Board()))
    queue.add("a")
    await settle()
    worker_tasks()["worker-1"].cancel()
    with pytest.raises(ControllerDiedError, match="worker-1 was cancelled"):
        await running.task
    assert "task=worker-0" in next(line for line in capsys.readouterr().out.splitlines() if "left behind" in line)
    over.set()
    await settle()
    assert worker_tasks() == {}
