"""The probes: liveness (/healthz, whether a restart is needed) and readiness (/readyz).

Guarantees: an outage of the API server makes the process unready, never unhealthy, so it restarts no replica. A blocked
event loop, a background task that has ended, and a queue whose keys no worker processes make it unhealthy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from controller.kube import errors
from controller.serving.routes import Answer, Request, Route, text

_HEARTBEAT: Final = 1.0
"""Seconds between two measurements, and the error of the measured lag. A shorter period would wake an idle process more
often."""
_MEMORY: Final = 30.0
MAX_LAG: Final = 5.0
"""Seconds for which the event loop may have been blocked during the last 30 s."""
_API_CACHED: Final = 2.0
UNATTENDED: Final = 10.0
"""Seconds for which keys may wait while every worker is idle; an idle worker takes the next key at once."""
STALLED: Final = 600.0
"""Seconds for which keys may wait while workers are busy and finish none: far longer than a reconcile whose requests
all run into their deadlines."""


class LoopMonitor:
    """Measures the lag of the event loop: how late it runs a due timer."""

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
    """The state of a cache's reflector; `controller.engine.reflector.Reflector` implements it."""

    answered: asyncio.Event
    synced: asyncio.Event
    connected: bool


class Queue(Protocol):
    """The state of a workqueue; `controller.engine.workqueue.WorkQueue` implements it."""

    def __len__(self) -> int:
        """Return the number of waiting keys."""
        ...

    def stalled(self) -> float:
        """Return the seconds for which keys have waited while no worker took or finished one."""
        ...

    def processing(self) -> Iterator[float]:
        """Yield, for each key in process, the seconds since a worker took it."""
        ...


def _neglected(name: str, queue: Queue) -> str | None:
    busy = sum(1 for _ in queue.processing())
    seconds = queue.stalled()
    if seconds <= (STALLED if busy else UNATTENDED):
        return None
    return f"{len(queue)} keys of {name} wait, and none of {busy} busy workers has finished a key for {seconds:.0f} s"


def _behind(name: str, source: Source) -> str | None:
    if not source.answered.is_set():
        return f"cache of {name} is not filled yet"
    if not source.synced.is_set():
        return None  # an optional resource that the credentials may not read
    return None if source.connected else f"watch of {name} is down"


class Health:
    """Answers the probes. An empty list of problems means success.

    `ended` names the background tasks that have ended, `sources` are the reflectors whose caches have to be synced,
    `queues` the workqueues that workers have to process. `reach_api` raises KubeError when the API server does not
    answer.
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
        """Return the problems that only a restart solves."""
        problems = [f"task {name} has ended" for name in self._ended()]
        neglected = (_neglected(name, queue) for name, queue in self._queues.items())
        problems += [problem for problem in neglected if problem is not None]
        if self._monitor.lag > MAX_LAG:
            problems.append(f"the event loop was blocked for {self._monitor.lag:.1f} s")
        return problems

    async def readiness(self) -> list[str]:
        """Return the problems for which this process cannot reconcile now."""
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
        """Return the routes of the probes, without authentication: text, one problem a line, with status 200 or 503."""

        async def healthz(_: Request) -> Answer:
            return _answer(self.health())

        async def readyz(_: Request) -> Answer:
            return _answer(await self.readiness())

        return [Route("GET", "/healthz", healthz), Route("GET", "/readyz", readyz)]


def _answer(problems: list[str]) -> Answer:
    return text("\n".join(problems) or "ok", 503 if problems else 200)
