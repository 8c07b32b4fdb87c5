"""Workers take keys off the queue and reconcile them, so many at a time, never two of one key.

Guarantees: a key whose reconcile fails comes back with backoff, whatever was raised, also by the log or the metrics
about it; a worker never dies of one, and whose task ends for another reason ends them all (`run`);
on `drain` no new key is taken, and those in hand are finished or, once `run` is cancelled, abandoned (any process may
die between any two writes, so abandoning is safe).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog

from controller.engine.backoff import LONGEST_FLOOR
from controller.engine.log_context import RECONCILE
from controller.engine.workqueue import QueueShutDownError, WorkQueue
from controller.kube import errors

_log = structlog.get_logger(__name__)


_CANCEL_DEADLINE: Final = 1.0
"""Seconds in which workers have to end when they are cancelled."""
CONFLICT_PATIENCE: Final = 1.0
"""Seconds before a key is tried again whose write met a newer object, should the watch not bring that before."""


class Result(msgspec.Struct, frozen=True):
    """A reconcile that did not fail. `requeue_after` is in seconds; `retry` asks for the key's own backoff."""

    requeue_after: float | None = None
    retry: bool = False


class Outcome(StrEnum):
    """controller-runtime's values of the label `result`."""

    SUCCESS = "success"
    REQUEUE = "requeue"
    REQUEUE_AFTER = "requeue_after"
    ERROR = "error"


Reconcile: TypeAlias = Callable[[str], Awaitable[Result]]


class ReconcileMetrics(Protocol):
    """What the workers report."""

    def started(self) -> None:
        """Report a reconcile that begins."""

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Report how it ended."""


class WorkerEndedError(Exception):
    """A worker has ended that nobody stopped."""


class Workers:
    """A fixed number of tasks that reconcile keys of one queue. `noun` is what a key is called in the log."""

    def __init__(
        self, queue: WorkQueue[str], reconcile: Reconcile, *, noun: str, count: int, metrics: ReconcileMetrics
    ) -> None:
        self._noun = noun
        self._queue = queue
        self._reconcile = reconcile
        self._count = count
        self._metrics = metrics
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Work until cancelled, or until nothing is in hand any more after `drain`. To be called once.

        Raises WorkerEndedError when one of the tasks ends for another reason.
        """
        self._tasks = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self._count)]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping:
                worker = next(task for task in self._tasks if task.done())
                how, why = ("was cancelled", None) if worker.cancelled() else ("has ended", worker.exception())
                raise WorkerEndedError(f"{worker.get_name()} {how}") from why
            await asyncio.wait(self._tasks)
        finally:
            self._take_no_more()
            for task in self._tasks:
                task.cancel()
            _, late = await asyncio.wait(self._tasks, timeout=_CANCEL_DEADLINE)
            for task in late:
                _log.error("a worker does not end; it is left behind", task=task.get_name())

    async def drain(self) -> None:
        """Take no more keys, and wait until none is in hand."""
        self._take_no_more()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _take_no_more(self) -> None:
        self._stopping = True
        self._queue.shut_down()

    async def _work(self) -> None:
        while not self._stopping:
            try:
                key = await self._queue.get()
            except QueueShutDownError:
                return
            try:
                if not self._stopping:
                    await self._process(key)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Nobody ended this worker: something that the reconcile waited for was cancelled.
                self._queue.add_rate_limited(key)
                _log.exception("reconcile failed on a cancellation", **{self._noun: key})
            except Exception:  # noqa: BLE001 - telling of a reconcile must not end the worker, nor lose the key
                self._queue.add_rate_limited(key)
            finally:
                self._queue.done(key)

    async def _process(self, key: str) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        self._metrics.started()
        outcome = Outcome.ERROR
        attempt = self._queue.failures(key) + 1
        context = RECONCILE.set({self._noun: key, "attempt": attempt, "cause": self._queue.cause(key)})
        try:
            result = await self._reconcile(key)
        except errors.ConflictError as error:
            # Somebody wrote first. The watch brings the news; this is the ordinary course of optimistic writes.
            # Until then another try would meet the same.
            _log.debug("conflict", error=str(error))
            self._queue.add_rate_limited(key, at_least=CONFLICT_PATIENCE)
        except errors.KubeError as error:
            _log.warning("reconcile failed", error=str(error))
            self._queue.add_rate_limited(key, at_least=_retry_after(error))
        except Exception:  # noqa: BLE001 - a defect in one VM's reconcile must not stop the others
            _log.exception("reconcile failed on a defect")
            self._queue.add_rate_limited(key)
        else:
            outcome = self._settle(key, result)
        finally:
            RECONCILE.reset(context)
            self._metrics.finished(outcome, clock() - started)

    def _settle(self, key: str, result: Result) -> Outcome:
        if result.retry:
            self._queue.add_rate_limited(key)
            return Outcome.REQUEUE
        self._queue.forget(key)
        # When to look again is for the newest look to say: one that an earlier one asked for would find nothing.
        self._queue.drop_delayed(key)
        if result.requeue_after is None:
            return Outcome.SUCCESS
        self._queue.add_after(key, result.requeue_after)
        return Outcome.REQUEUE_AFTER


def _retry_after(error: errors.KubeError) -> float:
    """Seconds that the server asks for, as far as they are believed."""
    wanted = error.retry_after if isinstance(error, errors.StatusError) else None
    return min(wanted or 0.0, LONGEST_FLOOR)
