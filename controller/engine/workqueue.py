"""A rate-limited workqueue with client-go's semantics, for one event loop.

Guarantees, in the terms of client-go's doc.go:

- Fair: keys are processed in the order in which they were added.
- Stingy: a key added several times before it is processed is processed once. A key added while it is processed is
  processed once more, after `done`. No key is ever with two workers of one queue.
- Multiple producers and consumers: any task may add, any number may get.
- Shutdown notifications: `get` raises `QueueShutDownError` once the queue is shut down and empty.
- Delays: each key has at most one timer. Of two delayed adds the earlier time counts, but never one before the
  `at_least` of a failure (`add_rate_limited`). This lower bound applies until the timer fires or `drop_delayed` is
  called. A plain `add` reports a change, so it ignores the bound and queues the key at once.

No method awaits while it changes state. The event loop runs each of them whole, so no lock is needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from controller.engine.ratelimit import RateLimiter

K = TypeVar("K", bound=Hashable)


class QueueShutDownError(Exception):
    """Raised by `get` when the queue is shut down and has nothing more to hand out."""


class QueueMetrics:
    """The metrics that a queue reports; these methods do nothing. Times are in seconds."""

    def added(self, depth: int) -> None:
        """Report that a key was queued, and the depth of the queue after it."""

    def taken(self, depth: int, waited: float) -> None:
        """Report that a worker took a key, and how long the key was queued."""

    def finished(self, worked: float) -> None:
        """Report that a worker gave a key back, and how long it processed it."""

    def retried(self) -> None:
        """Report a delayed add, which may be a retry."""


class WorkQueue(Generic[K]):
    """The queue. Create it inside a running event loop; it uses that loop's clock."""

    def __init__(self, limiter: RateLimiter, *, metrics: QueueMetrics | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limiter = limiter
        self._metrics = metrics or QueueMetrics()
        # Every key of `_queue` is in `_dirty` and not in `_processing`.
        self._queue: deque[K] = deque()
        # Keys that need processing, with the time and the cause of the first add.
        self._dirty: dict[K, tuple[float, str]] = {}
        # Keys that are with workers, with the time at which the worker took them and the cause. A key may be dirty
        # too: then `done` queues it again.
        self._processing: dict[K, tuple[float, str]] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        # The time before which the timer of a key must not fire; only for keys that have a timer.
        self._not_before: dict[K, float] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        # Set while no key is queued and none is with a worker.
        self._idle = asyncio.Event()
        self._idle.set()
        self._shutting_down = False
        # When a worker last took a key or gave one back.
        self._moved = self._loop.time()

    def __len__(self) -> int:
        """Return how many keys wait for a worker."""
        return len(self._queue)

    def add(self, key: K, cause: str = "added") -> None:
        """Queue a key now. `cause` is for the log only: of several adds before `get`, the first one's is reported."""
        if self._shutting_down or key in self._dirty:
            return
        self._dirty[key] = (self._loop.time(), cause)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, delay: float, cause: str = "timer") -> None:
        """Queue a key in `delay` seconds; if it has a timer already, the earlier time counts."""
        if self._shutting_down:
            return
        if delay <= 0:
            self.add(key, cause)
            return
        self._metrics.retried()
        self._delay(key, self._loop.time() + delay, cause)

    def add_rate_limited(self, key: K, *, at_least: float = 0.0) -> None:
        """Queue a key that failed, after the rate limiter's delay, but not before `at_least` seconds have passed."""
        delay = max(at_least, self._limiter.when(key))
        if at_least > 0 and not self._shutting_down:
            now = self._loop.time()
            self._not_before[key] = max(now + at_least, self._not_before.get(key, now))
        self.add_after(key, delay, "retry")

    def drop_delayed(self, key: K) -> None:
        """Cancel the delayed add of a key. A key that is queued already stays queued."""
        self._not_before.pop(key, None)
        waiting = self._timers.pop(key, None)
        if waiting is not None:
            waiting.cancel()

    def forget(self, key: K) -> None:
        """Reset the key's backoff: it succeeded."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """Return how many times in a row the key failed."""
        return self._limiter.failures(key)

    async def get(self) -> K:
        """Wait for a key and take it; the caller must call `done` for it. Raises QueueShutDownError."""
        while not self._queue:
            if self._shutting_down:
                raise QueueShutDownError
            getter: asyncio.Future[None] = self._loop.create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # this getter was woken, but takes no key: wake another
                raise
        key = self._queue.popleft()
        now = self._loop.time()
        added, cause = self._dirty.pop(key)
        self._processing[key] = (now, cause)
        self._moved = now
        self._metrics.taken(len(self._queue), now - added)
        return key

    def cause(self, key: K) -> str:
        """Return the cause for which a key that is now with a worker was queued."""
        return self._processing[key][1]

    def done(self, key: K) -> None:
        """Give a key back. It is queued again if it was added while it was processed."""
        started, _ = self._processing.pop(key)
        self._moved = self._loop.time()
        self._metrics.finished(self._moved - started)
        if key in self._dirty:
            self._push(key)
        elif not self._processing and not self._queue:
            self._idle.set()

    def shut_down(self) -> None:
        """Accept no more keys. Workers still get the keys that are queued, and then QueueShutDownError."""
        self._shutting_down = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._not_before.clear()
        while self._getters:
            self._wake_one()

    async def shut_down_with_drain(self) -> None:
        """Shut down, and wait until workers have processed every key that is queued or with them."""
        self.shut_down()
        await self._idle.wait()

    def processing(self) -> Iterator[float]:
        """Yield, for each key that is with a worker, the seconds since the worker took it."""
        now = self._loop.time()
        return (now - started for started, _ in self._processing.values())

    def stalled(self) -> float:
        """Return for how many seconds keys wait while no worker takes one or gives one back; 0 if none waits."""
        if not self._queue:
            return 0.0
        added, _ = self._dirty[self._queue[0]]
        return self._loop.time() - max(self._moved, added)

    def _push(self, key: K) -> None:
        self._queue.append(key)
        self._idle.clear()
        self._metrics.added(len(self._queue))
        self._wake_one()

    def _due(self, key: K, cause: str) -> None:
        del self._timers[key]
        self._not_before.pop(key, None)
        self.add(key, cause)

    def _delay(self, key: K, due: float, cause: str) -> None:
        """Set a key's timer to `due`, unless it fires earlier already; never before `_not_before`."""
        earliest = self._not_before.get(key, float("-inf"))
        due = max(due, earliest)
        waiting = self._timers.get(key)
        if waiting is not None:
            if earliest <= waiting.when() <= due:
                return
            waiting.cancel()
        self._timers[key] = self._loop.call_at(due, self._due, key, cause)

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
