"""The queue against a model: a list, two sets and a table of delays."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.engine.workqueue import QueueShutDownError, WorkQueue
from tests.unit.engine.clock import SteppedLoop

KEYS = st.sampled_from("abcd")


_BACKOFF = 2.00005


class _Limiter:
    """Returns the same delay for every failure."""

    def when(self, key: Hashable) -> float:
        """Return the delay."""
        del key
        return _BACKOFF

    def forget(self, key: Hashable) -> None:
        """Do nothing: there is no count to reset."""

    def failures(self, key: Hashable) -> int:
        """Return 0."""
        del key
        return 0


class Machine(RuleBasedStateMachine):
    """Does to the queue and to the model what producers and workers may do, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.queue: WorkQueue[str] = self.loop.run_until_complete(self._make())
        self.ready: list[str] = []
        self.dirty: set[str] = set()
        self.processing: set[str] = set()
        self.due: dict[str, float] = {}
        self.not_before: dict[str, float] = {}
        self.waiting: list[asyncio.Task[str]] = []
        self.down = False
        self.steps = 0

    @staticmethod
    async def _make() -> WorkQueue[str]:
        return WorkQueue(_Limiter())

    def teardown(self) -> None:
        """End every getter, and the loop."""
        for getter in self.waiting:
            getter.cancel()
        self.loop.settle()
        self.loop.close()

    # --- the model ---------------------------------------------------------------------------------------

    def _model_add(self, key: str) -> None:
        if self.down or key in self.dirty:
            return
        self.dirty.add(key)
        if key not in self.processing:
            self.ready.append(key)

    def _compare_getters(self) -> None:
        """Hand ready keys to the waiting getters, in order, and see that the queue did the same."""
        self.loop.settle()
        while self.waiting and (self.ready or self.down):
            getter = self.waiting.pop(0)
            assert getter.done()
            if self.ready:
                key = self.ready.pop(0)
                self.dirty.remove(key)
                self.processing.add(key)
                assert getter.result() == key
            else:
                assert isinstance(getter.exception(), QueueShutDownError)
        assert not any(getter.done() for getter in self.waiting)

    # --- what may happen ---------------------------------------------------------------------------------

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        """Add a key."""
        self.queue.add(key)
        self._model_add(key)
        self._compare_getters()

    @rule(key=KEYS, seconds=st.integers(-1, 9))
    def add_after(self, key: str, seconds: int) -> None:
        """Add a key with a delay that ends at a time of its own."""
        self.steps += 1
        delay = seconds + self.steps / 10_000 if seconds > 0 else float(seconds)
        self.queue.add_after(key, delay)
        if delay <= 0:
            self._model_add(key)
        elif not self.down:
            self._model_delay(key, self.loop.now + delay)
        self._compare_getters()

    def _model_delay(self, key: str, due: float) -> None:
        """Retain the earlier of two delays, unless it ends before the time that a failure asked for."""
        earliest = self.not_before.get(key, 0.0)
        known = self.due.get(key, 0.0)
        due = max(due, earliest)
        self.due[key] = min(due, known) if key in self.due and known >= earliest else due

    @rule(key=KEYS, seconds=st.integers(0, 9))
    def fail(self, key: str, seconds: int) -> None:
        """Add a key that failed, with a Retry-After of so many seconds; its limiter returns two."""
        self.steps += 1
        at_least = seconds + self.steps / 10_000 if seconds > 0 else 0.0
        self.queue.add_rate_limited(key, at_least=at_least)
        if not self.down:
            if at_least:
                self.not_before[key] = max(self.not_before.get(key, 0.0), self.loop.now + at_least)
            self._model_delay(key, self.loop.now + max(at_least, _BACKOFF))
        self._compare_getters()

    @rule(key=KEYS)
    def drop_delayed(self, key: str) -> None:
        """Drop a delay, as a success does."""
        self.queue.drop_delayed(key)
        self.due.pop(key, None)
        self.not_before.pop(key, None)

    @rule()
    def get(self) -> None:
        """Let one more worker wait for a key."""
        self.waiting.append(self.loop.create_task(self.queue.get()))
        self._compare_getters()

    @precondition(lambda self: self.processing)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        """Give a key back."""
        key = data.draw(st.sampled_from(sorted(self.processing)))
        self.queue.done(key)
        self.processing.remove(key)
        if key in self.dirty:
            self.ready.append(key)
        self._compare_getters()

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        """Let delays end."""
        self.loop.advance(seconds)
        for key, due in sorted(self.due.items(), key=lambda item: item[1]):
            if due <= self.loop.now:
                del self.due[key]
                self.not_before.pop(key, None)
                self._model_add(key)
        self._compare_getters()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), key=st.none() | KEYS)
    def cancel_a_getter(self, data: st.DataObject, key: str | None) -> None:
        """Cancel a waiting getter, perhaps at the very moment at which a key would wake it."""
        getter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        if key is not None:
            self.queue.add(key)
            self._model_add(key)
        getter.cancel()
        self._compare_getters()
        assert getter.cancelled()

    @precondition(lambda self: self.steps > 5)
    @rule()
    def shut_down(self) -> None:
        """Shut down; delays are dropped."""
        self.queue.shut_down()
        self.down = True
        self.due.clear()
        self.not_before.clear()
        self._compare_getters()

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def both_agree(self) -> None:
        """Compare the observable state of the queue with the model."""
        assert list(self.queue._queue) == self.ready
        assert set(self.queue._dirty) == self.dirty
        assert set(self.queue._processing) == self.processing
        assert {key: timer.when() for key, timer in self.queue._timers.items()} == self.due
        assert self.queue._idle.is_set() == (not self.ready and not self.processing)
        assert len(self.queue) == len(self.ready)


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None)
