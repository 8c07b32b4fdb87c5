"""Watches pods, VMs, nodes and migrations, and records their history.

Guarantees: every event that the API server sends is recorded, in order, with the time at which it arrived. A broken
watch is resumed from its last resource version, so that no event is missed; where that is impossible (410) the
observation fails, so that a history never has a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Self

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm.policy import FAKE_NODES
from controller.engine import watch
from controller.engine.changes import Change, revision
from controller.kube import errors
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS, Resource
from controller.observe import history
from controller.observe.history import ClusterState, NodeSeen, Seen

_NODES: Final = ",".join(f"{key}={value}" for key, value in FAKE_NODES.items())
_PATIENCE: Final = 10.0
"""Seconds for which the API server may be unreachable."""


class ObservationError(Exception):
    """An event was missed, or a watch cannot be resumed; the message names the resource and the reason."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    condition: Callable[[ClusterState], bool]
    reached: asyncio.Future[None]


class Observer:
    """Watches one namespace, and the fake nodes. Use as an async context manager.

    Entering it returns once all existing objects are in `picture`, and raises ObservationError if they cannot be
    listed. `rng` jitters retries.
    """

    def __init__(self, client: watch.ListWatcher, namespace: str, rng: Random) -> None:
        self._client = client
        self._namespace = namespace
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiters: list[_Waiter] = []
        self._pod_versions: dict[str, int] = {}
        self._silent_since: dict[str, float] = {}
        self._changed_at = 0.0
        self.history: list[Seen] = []
        self.picture = ClusterState()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Fails with ObservationError when the observation cannot continue."""

    @property
    def now(self) -> float:
        """Seconds since the observation began."""
        return self._loop.time() - self._began

    async def __aenter__(self) -> Self:
        # Nodes first: an event of a pod is judged by whether its node exists.
        for resource in (NODES, VIRTUAL_MACHINES, PODS, MIGRATIONS):
            listed = asyncio.Event()
            task = asyncio.create_task(self._follow(resource, listed), name=f"observation of {resource.plural}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)
            first: asyncio.Future[Any] = asyncio.create_task(listed.wait())
            await asyncio.wait((first, self.broken), return_when=asyncio.FIRST_COMPLETED)
            if not listed.is_set():
                first.cancel()
                await self.__aexit__()
                self.broken.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.broken.cancel()

    def when(self, condition: Callable[[ClusterState], bool]) -> asyncio.Future[None]:
        """Return a future that is done once the picture satisfies a condition, which is evaluated after every event."""
        reached: asyncio.Future[None] = self._loop.create_future()
        if condition(self.picture):
            reached.set_result(None)
        else:
            self._waiters.append(_Waiter(condition, reached))
        return reached

    async def quiet(self, seconds: float) -> None:
        """Return when no object has changed for so many seconds; nodes are ignored because of their heartbeats.

        While no watch is open, no change can be seen: the seconds count from the next watch.
        """
        while (left := self._changed_at + seconds - self.now) > 0:  # noqa: ASYNC110 - each change extends the wait
            await asyncio.sleep(left)

    async def caught_up(self) -> None:
        """Return when the history of pods has reached the state that a quorum read returns now."""
        page = await self._client.list_page(PODS, namespace=self._namespace, limit=0)
        existing = {pod.metadata.uid: revision(pod.metadata.resource_version) for pod in page.items}
        as_of = revision(page.resource_version)

        def shown(picture: ClusterState) -> bool:
            seen = self._pod_versions
            newer = all(seen[uid] > as_of for uid in picture.pods.keys() - existing.keys())
            return newer and all(seen.get(uid, -1) >= version for uid, version in existing.items())

        await self.when(shown)

    async def _follow(self, resource: Resource[Any], listed: asyncio.Event) -> None:
        namespace, selector = (None, _NODES) if resource is NODES else (self._namespace, None)
        news = watch.follow(self._client, resource, rng=self._rng, namespace=namespace, label_selector=selector)
        async with aclosing(news):
            async for item in news:
                self._take(item, resource)
                if isinstance(item, watch.Listed):
                    listed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.broken.done() and (error := task.exception()) is not None:
            self.broken.set_exception(error)

    def _take(self, news: watch.Item[Any], resource: Resource[Any]) -> None:
        """Record the changes in an item of a watch. Raises ObservationError if events were missed or watching fails."""
        if isinstance(news, watch.Ended | watch.Failed):  # no change can be seen before the next watch
            self._changed_at = max(self._changed_at, self.now + news.delay)
        match news:
            case watch.Batch():
                self._record_all(news.changes, resource)
            case watch.Listed():
                self._record_all([Change.of(item) for item in news.items], resource)
            case watch.Opened():
                self._silent_since.pop(resource.plural, None)
            case watch.Failed(error=errors.TransportError()):
                if self.now - self._silent_since.setdefault(resource.plural, self.now) > _PATIENCE:
                    raise ObservationError(f"watching {resource.plural} fails: {news.error}")
            case watch.Failed():
                raise ObservationError(f"events of {resource.plural} were missed: {news.error}")

    def _record_all(self, changes: Iterable[watch.Event[Any]], resource: Resource[Any]) -> None:
        for change in changes:
            if isinstance(change, Change):
                self._record(change)
            elif isinstance(change, watch.Undecodable):
                raise ObservationError(f"events of {resource.plural} were missed: {change.error}")

    def _record(self, change: Change[Any]) -> None:
        event = history.seen(change.item, at=self.now, deleted=change.deleted)
        if isinstance(change.item, Pod):
            self._pod_versions[change.item.metadata.uid] = change.revision
        if not isinstance(event, NodeSeen):
            self._changed_at = event.at
        self.history.append(event)
        self.picture.apply(event)
        self._waiters = [waiter for waiter in self._waiters if not waiter.reached.done()]
        for waiter in self._waiters:
            if waiter.condition(self.picture):
                waiter.reached.set_result(None)
