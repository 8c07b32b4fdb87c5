"""The lifecycle of a process: the stages in which its parts start and stop.

Guarantees:

- The stages (`When`) open in order, each once its gate has returned. A part starts with its stage, in the order of the
  list.
- Every part that was started is stopped exactly once, the last stage first. On a requested stop all parts of a stage
  first drain (`Part.drain`), concurrently and for a bounded time; then they are cancelled. After a failure they are
  cancelled at once.
- A part must run until it is stopped. The first part that ends earlier, in whatever way, or the first gate that fails
  ends the process: `run` raises ControllerDiedError with the cause.
- Nothing waits for ever: a part that does not end when it is cancelled is logged and abandoned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import structlog

from controller.engine.election import LeaseLostError

_log = structlog.get_logger(__name__)

CANCEL_TIMEOUT: Final = 5.0
"""Seconds that the cancelled parts of one stage have to end. Three stages and the grace of the drain stay below the
30 s after which the kubelet kills a pod."""

Run: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class ControllerDiedError(Exception):
    """A part or a gate ended unexpectedly, and the process must restart. The message names it and the cause."""


class When(IntEnum):
    """The stage in which a part starts. The stages open in this order."""

    ALWAYS = 0
    """From the start."""
    SYNCED = 1
    """Once the caches have synced."""
    LEADING = 2
    """Once this process leads."""


@dataclass(frozen=True, slots=True)
class Part:
    """A long-running task of the process."""

    name: str
    """Its name in logs and errors."""
    run: Run
    """Runs until cancelled."""
    when: When = When.ALWAYS
    drain: Run | None = None
    """Makes `run` take no new work, and returns once its work in progress is finished. Cancelled after the grace."""


class Lifecycle:
    """Runs parts. `gates` maps a stage to what it waits for; a stage without a gate opens with the previous one."""

    def __init__(self, parts: Iterable[Part], gates: Mapping[When, Run]) -> None:
        self._parts = tuple(parts)
        self._gates = gates
        self._started: dict[When, list[tuple[Part, asyncio.Task[object]]]] = {}
        self._ended: list[str] = []
        self._failure: ControllerDiedError | None = None
        # Set by the first failure and by the request to stop: then no further part starts.
        self._ending = asyncio.Event()

    def has_reached(self, when: When) -> bool:
        """Whether a stage has opened."""
        return when in self._started

    def ended(self) -> tuple[str, ...]:
        """Return the names of the parts and gates that ended without being stopped."""
        return tuple(self._ended)

    async def run(self, stop: asyncio.Event, *, grace: float) -> None:
        """Start every part with its stage, and stop them all when `stop` is set. To be called once.

        `grace` is how many seconds the parts of one stage then have to finish their work in progress. Raises
        ControllerDiedError when a part ends before it is stopped, or a gate fails.
        """
        stopping = asyncio.create_task(stop.wait(), name="stop")
        stopping.add_done_callback(lambda _: self._ending.set())
        requested = False
        try:
            for when in When:
                if not await self._opens(when):
                    break
                self._start(when)
            await self._ending.wait()
            if self._failure is not None:
                raise self._failure
            requested = True
            _log.info("stopping")
        finally:
            await _cancel([stopping])
            async with AsyncExitStack() as stages:  # each is stopped even if this task is cancelled meanwhile
                for when in When:
                    stages.push_async_callback(self._stop, when, grace if requested else 0.0)

    async def _opens(self, when: When) -> bool:
        """Wait for a stage's gate; return False if the process has to end first."""
        if when in self._gates:
            gate = asyncio.create_task(self._gates[when](), name=f"{when.name.lower()} gate")
            gate.add_done_callback(self._gate_ended)
            ending = asyncio.create_task(self._ending.wait(), name="ending")
            try:
                await asyncio.wait((gate, ending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gate.remove_done_callback(self._gate_ended)
                await _cancel(task for task in (gate, ending) if not task.done())
        return not self._ending.is_set()

    def _start(self, when: When) -> None:
        started = self._started[when] = []
        for part in self._parts:
            if part.when is when:
                task = asyncio.create_task(part.run(), name=part.name)
                task.add_done_callback(self._part_ended)
                started.append((part, task))

    async def _stop(self, when: When, grace: float) -> None:
        """Stop the parts of a stage, if it has opened."""
        living = [(part, task) for part, task in self._started.get(when, ()) if not task.done()]
        for _, task in living:
            task.remove_done_callback(self._part_ended)
        draining = [
            asyncio.create_task(part.drain(), name=f"drain of {part.name}")
            for part, _ in living
            if part.drain is not None and grace > 0
        ]
        try:
            if draining:
                await asyncio.wait(draining, timeout=grace)
        finally:
            await _cancel([*draining, *(task for _, task in living)])

    def _gate_ended(self, gate: asyncio.Task[object]) -> None:
        if gate.cancelled() or gate.exception() is not None:
            self._part_ended(gate)

    def _part_ended(self, task: asyncio.Task[object]) -> None:
        """End the process because of this part or gate, unless it is ending already."""
        self._ended.append(task.get_name())
        is_first = not self._ending.is_set()
        why = None if task.cancelled() else task.exception()
        if isinstance(why, LeaseLostError) and is_first:
            text = str(why)
        else:
            cause = "it was cancelled" if task.cancelled() else f"{type(why).__name__}: {why}" if why else "it returned"
            text = f"task {task.get_name()} has ended: {cause}"
            _log.error("a task that must live has ended", task=task.get_name(), cause=cause, exc_info=why)
        if is_first:
            self._failure = ControllerDiedError(text)
            self._failure.__cause__ = why
            self._ending.set()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end; log those that fail or do not end."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
    for task in tasks:
        if not task.done():
            _log.error("a task does not end; it is left behind", task=task.get_name())
        elif not task.cancelled() and (why := task.exception()) is not None:
            _log.error("a task failed when it was stopped", task=task.get_name(), exc_info=why)
