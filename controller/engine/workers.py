"""Workers: a fixed number of tasks that take keys from a workqueue and reconcile them.

Guarantees:

- The queue never gives one key to two workers at once.
- A failed reconcile requeues its key with backoff, whatever exception was raised, also by the logging or the metrics
  of the reconcile. It never ends a worker.
- A worker task that ends for any other reason ends all of them, and `run` raises.
- After `drain` no worker takes a new key. Reconciles in progress finish, unless `run` is cancelled: then they are
  abandoned. This is safe, as a process may die between any two writes anyway.
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
"""Seconds that cancelled workers have to end."""
CONFLICT_DELAY: Final = 1.0
"""Seconds before a key is retried after a write conflict. The watch event of the newer object requeues it earlier."""


class Result(msgspec.Struct, frozen=True):
    """The result of a reconcile that did not fail.

    `requeue_after` is in seconds; `retry` requeues the key with its own backoff.
    """

    requeue_after: float | None = None
    retry: bool = False


class Outcome(StrEnum):
    """How a reconcile ended, in controller-runtime's values of the metric label `result`."""

    SUCCESS = "success"
    REQUEUE = "requeue"
    REQUEUE_AFTER = "requeue_after"
    ERROR = "error"


Reconcile: TypeAlias = Callable[[str], Awaitable[Result]]


class ReconcileMetrics(Protocol):
    """The metrics that the workers report."""

    def started(self) -> None:
        """Report that a reconcile begins."""

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Report a reconcile's outcome and duration."""


class WorkerEndedError(Exception):
    """A worker ended without being stopped."""


class Workers:
    """`count` tasks that reconcile the keys of one queue. `noun` is the log field that names the key."""

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
        """Reconcile until cancelled, or until the last reconcile has finished after `drain`. To be called once.

        Raises WorkerEndedError when a worker task ends for another reason.
        """
        self._tasks = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self._count)]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping:
                worker = next(task for task in self._tasks if task.done())
                why = None if worker.cancelled() else worker.exception()
                how = "was cancelled" if worker.cancelled() else f"ended: {why!r}" if why else "returned"
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
        """Take no more keys, and wait until the reconciles in progress have finished."""
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
                # This worker was not cancelled: something that the reconcile awaited was.
                self._queue.add_rate_limited(key)
                _log.exception("reconcile failed on a cancellation", **{self._noun: key})
            except Exception:  # noqa: BLE001 - failing logs or metrics must not end the worker, nor lose the key
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
            # Another client wrote first, which is normal with optimistic concurrency. The watch delivers the newer
            # object; a retry before that would conflict again.
            _log.debug("conflict", error=str(error))
            self._queue.add_rate_limited(key, at_least=CONFLICT_DELAY)
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
        # Only the newest reconcile decides when the key comes back: drop the delay that an earlier one asked for.
        self._queue.drop_delayed(key)
        if result.requeue_after is None:
            return Outcome.SUCCESS
        self._queue.add_after(key, result.requeue_after)
        return Outcome.REQUEUE_AFTER


def _retry_after(error: errors.KubeError) -> float:
    """Return the server's Retry-After in seconds, at most LONGEST_FLOOR; 0 without one."""
    requested = error.retry_after if isinstance(error, errors.StatusError) else None
    return min(requested or 0.0, LONGEST_FLOOR)
