"""Builders of this room's tests: queues with a known limiter, pods, and a running reflector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

from controller.engine.lifecycle import Lifecycle, Part, When
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.reflector import Metrics, Reflector
from controller.engine.store import Store
from controller.engine.watch import Relist
from controller.engine.workers import Workers
from controller.engine.workqueue import QueueMetrics, WorkQueue
from controller.kube.kinds import Pod, PodSpec
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from tests.model.script import HANG, ListStep, ScriptedApi, WatchStep


def seeded(seed: int = 1) -> Random:
    """Return a source of jitter that is the same at every run."""
    return Random(seed)  # noqa: S311 - no secret


def new_queue(metrics: QueueMetrics | None = None, *, jitter: float = 0.0) -> WorkQueue[str]:
    """Return a queue on client-go's default limiter, by default without jitter. Needs a running loop."""
    clock = asyncio.get_running_loop().time
    return WorkQueue(DefaultLimiter(ItemExponential(seeded(), jitter=jitter), Bucket(clock)), metrics=metrics)


class RunningWorkers:
    """Workers that run as a part of a process."""

    def __init__(self, workers: Workers) -> None:
        self._stopping = asyncio.Event()
        part = Part("workers", workers.run, When.LEADING, drain=workers.drain)
        self.task = asyncio.create_task(Lifecycle([part], {}).run(self._stopping, grace=10))

    async def stop(self) -> None:
        """Stop the process; reconciles in progress have 10 s. Raises the error that ended the process."""
        self._stopping.set()
        await self.task

    async def abandon(self) -> None:
        """End the process at once."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def settle() -> None:
    """Run every task that can run; takes no time."""
    for _ in range(20):
        await asyncio.sleep(0)


async def drain(queue: WorkQueue[str]) -> list[str]:
    """Take and give back every key that is queued now."""
    keys = []
    while len(queue):
        keys.append(await queue.get())
        queue.done(keys[-1])
    return keys


def pod(name: str, version: int | str, *, node: str | None = None, namespace: str = "default") -> Pod:
    """Return a pod at a resource version."""
    return Pod(
        metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}", resource_version=str(version)),
        spec=PodSpec(node_name=node),
    )


class ReportedMetrics(Metrics):
    """Records the reports of a reflector: the names of the methods, and the causes."""

    def __init__(self) -> None:
        self.reports: list[str] = []

    def listed(self) -> None:
        """Record the call."""
        self.reports.append("listed")

    def watching(self) -> None:
        """Record the call."""
        self.reports.append("watching")

    def watched_shortly(self) -> None:
        """Record the call."""
        self.reports.append("watched_shortly")

    def heard(self) -> None:
        """Record the call."""
        self.reports.append("heard")

    def must_list_again(self, cause: Relist) -> None:
        """Record the cause."""
        self.reports.append(cause)

    def left_out(self, objects: int) -> None:
        """Record the number, unless it is 0."""
        if objects:
            self.reports.append(f"left out {objects}")


class Scene:
    """A reflector between a scripted API server and a store whose changes are recorded."""

    def __init__(
        self,
        lists: Iterable[ListStep],
        watches: Iterable[Sequence[WatchStep]] = (),
        *,
        rest: Sequence[WatchStep] = (HANG,),
        namespace: str | None = None,
        label_selector: str | None = None,
        optional: bool = False,
    ) -> None:
        self.api = ScriptedApi(list(lists), list(watches), rest)
        self.store: Store[Pod] = Store()
        self.changes: list[str] = []
        self.store.listen(self._record, name="scene")
        self.metrics = ReportedMetrics()
        self.reflector = Reflector(
            self.api,
            PODS,
            self.store,
            rng=seeded(),
            namespace=namespace,
            label_selector=label_selector,
            optional=optional,
            metrics=self.metrics,
        )

    def _record(self, old: Pod | None, new: Pod | None) -> None:
        """Record a change as `+name`, `-name` or `~name`."""
        changed = new or old
        assert changed is not None
        self.changes.append(f"{'+' if old is None else '-' if new is None else '~'}{changed.metadata.name}")

    @property
    def names(self) -> list[str]:
        """The names of the pods in the store."""
        return sorted(item.metadata.name for item in self.store)

    @property
    def watched_from(self) -> list[str]:
        """The version of every watch so far."""
        return [request.resource_version for request in self.api.watch_requests]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the reflector; assert that only cancellation ends it."""
        task = asyncio.create_task(self.reflector.run())
        try:
            yield task
            assert not task.done(), "the reflector ended by itself"
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()


def gaps(times: Sequence[float]) -> list[float]:
    """Return the seconds between neighbours."""
    return [later - earlier for earlier, later in pairwise(times)]
