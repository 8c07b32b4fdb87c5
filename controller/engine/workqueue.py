"""A rate-limited workqueue with client-go's semantics, for one event loop.

Guarantees, as client-go's doc.go words them:

- Fair: keys come out in the order in which they were added.
- Stingy: a key added several times before it is processed comes out once; one added while it is processed comes
  out once more, after `done`. No key is ever with two workers.
- Many producers and consumers: any task may add, any number may get.
- Shutdown notifications: `get` raises `QueueShutDownError` once the queue is shut down and empty.

A delayed add of a key that already waits keeps the earlier time, but none before the time that a failure asked for
(`add_rate_limited`): that holds, until the key is queued by its timer or its delay is dropped, for earlier and later
delays. An `add` is news, and comes at once all the same. Nothing here awaits while it changes state, so
no lock is needed: the event loop runs each method whole.
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
    """What a queue reports; here to nobody. Times are in seconds."""

    def added(self, depth: int) -> None:
        """Report a key that was queued, and the depth after it."""

    def taken(self, depth: int, waited: float) -> None:
        """Report a key handed to a worker, and how long it was queued."""

    def finished(self, worked: float) -> None:
        """Report a key that a worker is done with."""

    def retried(self) -> None:
        """Report a delayed add."""


class WorkQueue(Generic[K]):
    """The queue. Make it inside a running event loop, whose clock it keeps."""

    def __init__(self, limiter: RateLimiter, *, metrics: QueueMetrics | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limiter = limiter
        self._metrics = metrics or QueueMetrics()
        # Every key of `_queue` is in `_dirty` and not in `_processing`.
        self._queue: deque[K] = deque()
        # Keys that need processing, with the time and the cause of the first add.
        self._dirty: dict[K, tuple[float, str]] = {}
        # Keys that workers have now, with the time they took them and the cause. May also be dirty: `done` queues
        # those again.
        self._processing: dict[K, tuple[float, str]] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        # Before when the timer of a key must not end; only keys that have one.
        self._not_before: dict[K, float] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        # Set while no key is queued and none is with a worker.
        self._idle = asyncio.Event()
        self._idle.set()
        self._shutting_down = False
        # When a worker last took a key or gave one back.
        self._moved = self._loop.time()

    def __len__(self) -> int:
        """Return the keys that wait for a worker."""
        return len(self._queue)

    def add(self, key: K, cause: str = "added") -> None:
        """Queue a key, now. `cause` is for people: no key is kept apart by it, the first one holds."""
        if self._shutting_down or key in self._dirty:
            return
        self._dirty[key] = (self._loop.time(), cause)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, delay: float, cause: str = "timer") -> None:
        """Queue a key in `delay` seconds; if it waits already, the earlier time holds."""
        if self._shutting_down:
            return
        if delay <= 0:
            self.add(key, cause)
            return
        self._metrics.retried()
        self._delay(key, self._loop.time() + delay, cause)

    def add_rate_limited(self, key: K, *, at_least: float = 0.0) -> None:
        """Queue a key that failed, when its rate limiter says so, but not before `at_least` seconds."""
        delay = max(at_least, self._limiter.when(key))
        if at_least > 0 and not self._shutting_down:
            now = self._loop.time()
            self._not_before[key] = max(now + at_least, self._not_before.get(key, now))
        self.add_after(key, delay, "retry")

    def drop_delayed(self, key: K) -> None:
        """Take back a delayed add of a key; one that is queued already stays."""
        self._not_before.pop(key, None)
        waiting = self._timers.pop(key, None)
        if waiting is not None:
            waiting.cancel()

    def forget(self, key: K) -> None:
        """Tell the rate limiter that the key succeeded."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """Return how often the key failed in a row."""
        return self._limiter.failures(key)

    async def get(self) -> K:
        """Wait for a key and take it; `done` must follow. Raises QueueShutDownError."""
        while not self._queue:
            if self._shutting_down:
                raise QueueShutDownError
            getter: asyncio.Future[None] = self._loop.create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # the wake-up was ours to use; hand it on
                raise
        key = self._queue.popleft()
        now = self._loop.time()
        added, cause = self._dirty.pop(key)
        self._processing[key] = (now, cause)
        self._moved = now
        self._metrics.taken(len(self._queue), now - added)
        return key

    def cause(self, key: K) -> str:
        """Return why a key that is with a worker was queued."""
        return self._processing[key][1]

    def done(self, key: K) -> None:
        """Give a key back; it is queued again if it was added meanwhile."""
        started, _ = self._processing.pop(key)
        self._moved = self._loop.time()
        self._metrics.finished(self._moved - started)
        if key in self._dirty:
            self._push(key)
        elif not self._processing and not self._queue:
            self._idle.set()

    def shut_down(self) -> None:
        """Take no more keys; workers get what is queued, then QueueShutDownError."""
        self._shutting_down = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._not_before.clear()
        while self._getters:
            self._wake_one()

    async def shut_down_with_drain(self) -> None:
        """Shut down, and wait until workers are done with every key they have and that is queued."""
        self.shut_down()
        await self._idle.wait()

    def processing(self) -> Iterator[float]:
        """Yield for how many seconds each key now with a worker has been there."""
        now = self._loop.time()
        return (now - started for started, _ in self._processing.values())

    def stalled(self) -> float:
        """Return for how many seconds keys have waited while no worker took one or gave one back."""
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
        """Let a key's timer end at `due`, or earlier if it does already, but not before it may."""
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
