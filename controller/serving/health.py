"""Whether this process should be restarted (health) and whether it does its job (readiness).

Guarantees: an outage of the API server never makes the process unhealthy, only unready, so it restarts no replica;
a blocked event loop, a background task that ended or keys that nobody works on do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from controller.kube import errors
from controller.serving.routes import Answer, Request, Route, text

_HEARTBEAT: Final = 1.0
"""Seconds between two looks. A standstill may show short by as much; each look wakes a process that is at rest."""
_MEMORY: Final = 30.0
MAX_LAG: Final = 5.0
"""Seconds the event loop may have stood still during the last 30 s."""
_API_CACHED: Final = 2.0
UNATTENDED: Final = 10.0
"""Seconds for which keys may wait while no worker has one in hand: each takes the next one at once."""
STALLED: Final = 600.0
"""Seconds for which keys may wait while workers have others in hand and finish none: far more than all requests of a
reconcile take that run into their deadlines."""


class LoopMonitor:
    """Measures how late the event loop runs what is due."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque((0.0,), maxlen=int(_MEMORY / _HEARTBEAT))

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(_HEARTBEAT)
            self._lags.append(max(0.0, clock() - before - _HEARTBEAT))

    @property
    def lag(self) -> float:
        """The worst lag of the last 30 s, in seconds."""
        return max(self._lags)


class Source(Protocol):
    """What fills a cache; `controller.engine.reflector.Reflector` is one."""

    answered: asyncio.Event
    synced: asyncio.Event
    connected: bool


class Queue(Protocol):
    """What workers take keys from; `controller.engine.workqueue.WorkQueue` is one."""

    def __len__(self) -> int:
        """Return how many keys wait."""
        ...

    def stalled(self) -> float:
        """Return for how many seconds keys have waited while no worker took one or gave one back."""
        ...

    def processing(self) -> Iterator[float]:
        """Yield for how many seconds each key that is with a worker has been there."""
        ...


def _neglected(name: str, queue: Queue) -> str | None:
    busy = sum(1 for _ in queue.processing())
    seconds = queue.stalled()
    if seconds <= (STALLED if busy else UNATTENDED):
        return None
    return f"{len(queue)} keys of {name} wait, and for {seconds:.0f} s none of {busy} workers at work has finished one"


def _behind(name: str, source: Source) -> str | None:
    if not source.answered.is_set():
        return f"cache of {name} is not filled yet"
    if not source.synced.is_set():
        return None  # it may not be read, and is done without
    return None if source.connected else f"watch of {name} is down"


class Health:
    """Answers the probes. An empty list of problems means yes.

    `ended` names the tasks that must live and do not, `sources` fill the caches that have to be full and up to date,
    `queues` have keys on which somebody has to work. `reach_api` raises KubeError when the API server does not answer.
    """

    def __init__(
        self,
        monitor: LoopMonitor,
        reach_api: Callable[[], Awaitable[None]],
        *,
        ended: Callable[[], Iterable[str]],
        sources: Iterable[tuple[str, Source]],
        queues: Mapping[str, Queue],
    ) -> None:
        self._monitor = monitor
        self._reach_api = reach_api
        self._ended = ended
        self._sources = tuple(sources)
        self._queues = queues
        self._api_problem: str | None = "API server: no answer yet"
        self._api_checked = float("-inf")

    def health(self) -> list[str]:
        """Return what only a restart can mend."""
        problems = [f"task {name} has ended" for name in self._ended()]
        neglected = (_neglected(name, queue) for name, queue in self._queues.items())
        problems += [problem for problem in neglected if problem is not None]
        if self._monitor.lag > MAX_LAG:
            problems.append(f"the event loop stood still for {self._monitor.lag:.1f} s")
        return problems

    async def readiness(self) -> list[str]:
        """Return what keeps this process from doing its job now."""
        problems = [problem for name, source in self._sources if (problem := _behind(name, source)) is not None]
        clock = asyncio.get_running_loop().time
        if clock() - self._api_checked > _API_CACHED:
            self._api_checked = clock()
            try:
                await self._reach_api()
            except errors.KubeError as error:
                self._api_problem = f"API server: {error}"
            else:
                self._api_problem = None
        if self._api_problem is not None:
            problems.append(self._api_problem)
        return problems

    def routes(self) -> list[Route]:
        """Return the probes: they answer anybody, in text, one problem a line, 200 or 503."""

        async def healthz(_: Request) -> Answer:
            return _answer(self.health())

        async def readyz(_: Request) -> Answer:
            return _answer(await self.readiness())

        return [Route("GET", "/healthz", healthz), Route("GET", "/readyz", readyz)]


def _answer(problems: list[str]) -> Answer:
    return text("\n".join(problems) or "ok", 503 if problems else 200)
