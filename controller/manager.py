"""The manager: wires the controllers to each other, and gives each its queue, workers and metrics.

Guarantees: before the parts run, no key is queued and no state is stored, so that a standby costs no more than its
caches; then every object in the caches is queued. Every series exists from the start, with 0.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import Random

from prometheus_client import CollectorRegistry

from controller.domain import names
from controller.domain.copying.policy import DEFAULT_COPYING, CopyingPolicy
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy
from controller.domain.vm.policy import LauncherPolicy
from controller.engine.controller import Channel, Controller, Reconciler
from controller.engine.events import EventWriter, Recorder
from controller.engine.lifecycle import Part, When
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.store import Store
from controller.engine.workers import Workers
from controller.engine.workqueue import WorkQueue
from controller.kube.kinds import Node
from controller.observe.caches import Caches
from controller.reconcilers.api import Api, Record, no_events
from controller.reconcilers.migration.copying import CallLater
from controller.reconcilers.migration.reconciler import MigrationReconciler
from controller.reconcilers.sources import feed, feed_migrations
from controller.reconcilers.vm.reconciler import VMReconciler
from controller.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the controllers."""

    policy: LauncherPolicy
    """The policy for the specs of launcher pods."""
    limits: Limits
    """The limits on parallel migrations, as in KubeVirt, where a migration costs network and memory."""
    workers: int
    """MaxConcurrentReconciles of each controller. More workers have more requests in flight at the same time."""
    events: bool
    """Whether Kubernetes Events are recorded; each occupies etcd for an hour."""
    strategy: Strategy = Strategy.RECREATE
    """How a migration moves its VM that names no strategy."""
    live: CopyingPolicy = DEFAULT_COPYING
    """What holds for live migrations whose VM and spec say nothing else."""


def _call_later(delay: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay, call)


def controllers(
    api: Api,
    caches: Mapping[str | None, Caches],
    nodes: Store[Node],
    policy: LauncherPolicy,
    limits: Limits,
    *,
    strategy: Strategy = Strategy.RECREATE,
    live: CopyingPolicy = DEFAULT_COPYING,
    record: Callable[[str], Record],
    rng: Random,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    monotonic: Callable[[], float] = time.monotonic,
    call_later: CallLater = _call_later,
) -> tuple[Controller[VMReconciler], Controller[MigrationReconciler]]:
    """Return both controllers, not yet started.

    They write through `api`; `record` returns the function that records the events of a kind.
    """
    vms = VMReconciler(api, caches, nodes, policy, record=record(names.VM_KIND), rng=rng, now=now, monotonic=monotonic)
    granted = Channel()
    migrations = MigrationReconciler(
        api,
        caches,
        nodes,
        policy,
        limits,
        record=record(names.MIGRATION_KIND),
        wake=granted.put,
        claim=vms.claim,
        hand_over=vms.hand_over,
        strategy=strategy,
        live=live,
        call_later=call_later,
        now=now,
        monotonic=monotonic,
    )
    return (
        Controller("virtualmachine", (partial(feed, caches=caches, nodes=nodes),), vms),
        Controller("virtualmachinemigration", (partial(feed_migrations, caches=caches), granted), migrations),
    )


class Manager:
    """Runs both controllers while this process leads; they write through `api`, and record events through `events`."""

    def __init__(
        self,
        options: Options,
        api: Api,
        events: EventWriter,
        caches: Mapping[str | None, Caches],
        nodes: Store[Node],
        *,
        rng: Random,
        registry: CollectorRegistry,
    ) -> None:
        self._options = options
        self._events = events
        self._rng = rng
        self._registry = registry
        self._recorders: dict[str, Recorder] = {}
        self.queues: dict[str, WorkQueue[str]] = {}
        """The workqueues by the names of their controllers."""
        wired = controllers(
            api,
            caches,
            nodes,
            options.policy,
            options.limits,
            strategy=options.strategy,
            live=options.live,
            record=self._recorder,
            rng=rng,
        )
        self.parts = [
            *(Part(f"event recorder of {kind}", each.run, When.LEADING) for kind, each in self._recorders.items()),
            *(self._part(controller) for controller in wired),
        ]
        """The parts that run the controllers and their event recorders."""
        registry.register(metrics.UnfinishedWork(self.queues))
        metrics.dropped_events(registry, lambda: sum(recorder.dropped for recorder in self._recorders.values()))

    def _recorder(self, kind: str) -> Record:
        if not self._options.events:
            return no_events
        recorder = self._recorders[kind] = Recorder(
            self._events,
            api_version=names.API_VERSION,
            kind=kind,
            instance=f"{socket.gethostname()}-{os.getpid()}",
            clock=asyncio.get_running_loop().time,
        )
        return recorder.record

    def _part(self, controller: Controller[Reconciler]) -> Part:
        """Return the part that runs a controller with its own queue, workers and metrics."""
        name, options = controller.name, self._options
        limiter = DefaultLimiter(ItemExponential(self._rng), Bucket(asyncio.get_running_loop().time))
        queue = self.queues[name] = WorkQueue(limiter, metrics=metrics.QueueMetrics(self._registry, name))
        workers = Workers(
            queue,
            controller.reconciler.reconcile,
            noun="vm",
            count=options.workers,
            metrics=metrics.ReconcileMetrics(self._registry, name, options.workers),
        )

        async def run() -> None:
            controller.start(queue.add)
            await workers.run()

        return Part(f"{name} controller", run, When.LEADING, drain=workers.drain)
