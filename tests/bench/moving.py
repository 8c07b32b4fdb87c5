"""Live migrations of many VMs at once: both controllers with their queues and workers, in virtual time.

500 VMs, 25 on each of 20 sources, move from each source to a target node of its own, so that they share two links. No
two VMs have the same memory: the smallest of a source ends first, each end changes the pace of the others, and no two
end together. Scheduler and kubelets act once a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

from controller.domain import names
from controller.domain.copying.policy import DEFAULT_COPYING
from controller.domain.migration.limits import Limits
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.workers import Outcome, Result, Workers
from controller.engine.workqueue import WorkQueue
from controller.kube.times import seconds_between
from controller.reconcilers.vm.expectations import SETTLED
from tests.bench import counting
from tests.model.cluster import Cluster
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process

SOURCES: Final = 20
A_NODE: Final = 25
VMS: Final = SOURCES * A_NODE
_WORKERS: Final = 16
_DELIVERY: Final = 0.05
"""Seconds between two deliveries of the watches."""
_DEADLINE: Final = 300.0


@dataclass(repr=False)
class _Counting(Cluster):
    """A cluster that counts the writes of its clients by VM."""

    by_vm: Counter[str] = field(default_factory=Counter)

    def _written(self, method: str, plural: str, document: Document) -> None:
        super()._written(method, plural, document)
        match plural:
            case VIRTUAL_MACHINES.plural:
                vm = document["metadata"]["name"]
            case MIGRATIONS.plural:
                vm = document["spec"]["vmName"]
            case _:
                vm = document["metadata"]["labels"][names.VM_LABEL]
        self.by_vm[vm] += 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What one migration cost: writes, and the times of its VM's reconciles, in seconds from when copying began.

    `copied` is for how many seconds it copied.
    """

    writes: int
    reconciles: tuple[float, ...]
    copied: float

    @property
    def records(self) -> int:
        """How often its checkpoint is due while it copies."""
        return int(self.copied // 30)

    @property
    def while_copying(self) -> int:
        """The reconciles while it copies, without those of its beginning, whose events arrive, and of the hand-over."""
        return sum(1.0 < at < self.copied - 1.0 for at in self.reconciles)


class Moving:
    """The VMs run on their sources, and no migration is limited."""

    def __init__(self) -> None:
        self.cluster = _Counting()
        for number in range(SOURCES):
            self.cluster.add_node(f"source-{number}")
            self.cluster.add_node(f"target-{number}")
        for number in range(VMS):
            source, place = divmod(number, A_NODE)
            memory = 0.004 + 0.0005 * place + 0.00002 * source
            counting.run(self.cluster, f"vm-{number}", f"source-{source}", cpu="0.01", memory=f"{memory:.5f}")
        self.cluster.pass_time(3600)
        self._began = self.cluster.now
        self._reconciles: dict[str, list[float]] = defaultdict(list)
        self._moved: list[str] = []
        self._all_over = asyncio.Event()

    async def move(self, vms: range) -> list[Cost]:
        """Migrate these VMs at once; wait until all have succeeded and no claim is left."""
        self.cluster.by_vm.clear()
        self._reconciles.clear()
        self._all_over.clear()
        self._moved = [f"vm-{number}" for number in vms]
        for number, name in zip(vms, self._moved, strict=True):
            target = f"target-{number // A_NODE}"
            self.cluster.migrate(f"move-{name}", vm=name, strategy="Live", targetNode=target)
        async with asyncio.timeout(_DEADLINE):
            await self._all_over.wait()
        return [self._cost(name) for name in self._moved]

    def _over(self, name: str) -> bool:
        succeeded = self.cluster.migration(f"move-{name}")["phase"] == "Succeeded"
        return succeeded and "migration" not in self.cluster.status(name)

    def _cost(self, name: str) -> Cost:
        status = self.cluster.migration(f"move-{name}")
        phases = {each["phase"]: each["phaseTransitionTimestamp"] for each in status["phaseTransitionTimestamps"]}
        copied = seconds_between(phases["Running"], status["endTimestamp"])
        began = seconds_between(self._began.isoformat(), phases["Running"])
        assert copied is not None
        assert began is not None
        times = tuple(at - began for at in self._reconciles[f"default/{name}"])
        return Cost(self.cluster.by_vm[name], times, copied)

    # --- the processes ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the controllers, the kubelets and the scheduler, from before moves may begin."""
        loop = asyncio.get_running_loop()
        process = Process(
            self.cluster,
            limits=Limits(cluster=0, outbound=0),
            live=DEFAULT_COPYING,
            call_later=lambda delay, call: loop.call_later(delay, self._punctual(call)),
        )
        limiter = DefaultLimiter(ItemExponential(Random(1)), Bucket(loop.time))  # noqa: S311 - jitter, no secret
        queues = WorkQueue[str](limiter), WorkQueue[str](limiter)
        tasks = [asyncio.create_task(self._deliver(process, queues)), asyncio.create_task(self._act())]
        reconciles = process.reconciler.reconcile, process.migrations.reconcile
        for queue, reconcile in zip(queues, reconciles, strict=True):
            workers = Workers(queue, self._counted(reconcile), noun="vm", count=_WORKERS, metrics=_Unmeasured())
            tasks.append(asyncio.create_task(workers.run()))
        await asyncio.sleep(SETTLED + 1)  # a controller that has just started waits for the creates of another one
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _tick(self) -> None:
        """Set the cluster's clock, which is the controllers', to the loop's."""
        self.cluster.now = self._began + timedelta(seconds=asyncio.get_running_loop().time())

    def _punctual(self, call: Callable[[], None]) -> Callable[[], None]:
        def called() -> None:
            self._tick()
            call()

        return called

    def _counted(self, reconcile: Callable[[str], Awaitable[Result]]) -> Callable[[str], Awaitable[Result]]:
        async def counted(key: str) -> Result:
            self._tick()
            self._reconciles[key].append(asyncio.get_running_loop().time())
            return await reconcile(key)

        return counted

    async def _deliver(self, process: Process, queues: tuple[WorkQueue[str], WorkQueue[str]]) -> None:
        while True:
            self._tick()
            process.deliver()
            for waiting, queue in zip((process.pending, process.moving), queues, strict=True):
                for key in waiting:
                    queue.add(key)
                waiting.clear()
            await asyncio.sleep(_DELIVERY)

    async def _act(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._tick()
            self.cluster.run_pods()
            self.cluster.finish_deletions()
            if self._moved and all(self._over(name) for name in self._moved):
                self._all_over.set()


class _Unmeasured:
    """Metrics that nobody reads."""

    def started(self) -> None:
        """Do nothing."""

    def finished(self, outcome: Outcome, seconds: float) -> None:
        """Do nothing."""
