"""The controllers: queues, reconcilers and workers, from the moment in which this process begins to act.

Guarantees: nothing is queued, and nothing remembered, before `start`, so that a process which stands by costs no more
than its caches; `start` queues everything that the caches hold; after `stop` nothing acts any more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from prometheus_client import CollectorRegistry

from controller.domain import names
from controller.domain.vm.launcher import LauncherPolicy
from controller.engine.events import EventWriter, Recorder
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.store import Store
from controller.engine.workers import Workers
from controller.engine.workqueue import WorkQueue
from controller.kube.kinds import Node
from controller.observe.caches import Caches
from controller.reconcilers.api import Api
from controller.reconcilers.migration.reconciler import MigrationReconciler
from controller.reconcilers.migration.slots import Limits
from controller.reconcilers.sources import feed, feed_migrations
from controller.reconcilers.vm.reconciler import Record, VMReconciler, no_events
from controller.telemetry import metrics

_VMS: Final = "virtualmachine"
_MIGRATIONS: Final = "virtualmachinemigration"


@dataclass(frozen=True, slots=True)
class Options:
    """How the controllers act. `workers` is for each of the two; without `events` none are written."""

    policy: LauncherPolicy
    limits: Limits
    workers: int
    events: bool


class Manager:
    """Both controllers of one process."""

    def __init__(self, options: Options, caches: Mapping[str | None, Caches], nodes: Store[Node], rng: Random) -> None:
        self._options = options
        self._caches = caches
        self._nodes = nodes
        self._rng = rng
        self._queues: dict[str, WorkQueue[str]] = {}
        self._metrics: dict[str, metrics.ReconcileMetrics] = {}
        self._workers: list[Workers] = []
        self._recorders: list[Recorder] = []

    @property
    def queues(self) -> Mapping[str, WorkQueue[str]]:
        """The queues by name, once they are made."""
        return self._queues

    def instrument(self, registry: CollectorRegistry) -> None:
        """Make the queues, and every series, which begin with 0."""
        for name in (_VMS, _MIGRATIONS):
            limiter = DefaultLimiter(ItemExponential(self._rng), Bucket(asyncio.get_running_loop().time))
            self._queues[name] = WorkQueue(limiter, metrics=metrics.QueueMetrics(registry, name))
            self._metrics[name] = metrics.ReconcileMetrics(registry, name, self._options.workers)
        registry.register(metrics.UnfinishedWork(self._queues))
        metrics.dropped_events(registry, lambda: sum(recorder.dropped for recorder in self._recorders))

    def start(self, api: Api, events: EventWriter) -> list[asyncio.Task[None]]:
        """Begin to act through `api`, and to tell of it through `events`; return the tasks that must live."""
        options = self._options
        vms = VMReconciler(
            api,
            self._caches,
            self._nodes,
            options.policy,
            record=self._recorder(events, names.VM_KIND),
            rng=self._rng,
        )
        migrations = MigrationReconciler(
            api,
            self._caches,
            self._nodes,
            options.policy,
            options.limits,
            record=self._recorder(events, names.MIGRATION_KIND),
            wake=self._queues[_MIGRATIONS].add,
            claim=vms.claim,
        )
        vms.begin()
        migrations.begin()
        feed(self._queues[_VMS].add, self._caches, self._nodes)
        feed_migrations(self._queues[_MIGRATIONS].add, self._caches)
        tasks = [asyncio.create_task(recorder.run(), name="event-recorder") for recorder in self._recorders]
        for name, reconcile in ((_VMS, vms.reconcile), (_MIGRATIONS, migrations.reconcile)):
            group = Workers(
                self._queues[name], reconcile, noun="vm", count=options.workers, metrics=self._metrics[name]
            )
            tasks += group.start()
            self._workers.append(group)
        return tasks

    async def stop(self, deadline: float) -> None:
        """Take no new keys; give those in hand so many seconds."""
        await asyncio.gather(*(group.stop(deadline) for group in self._workers))

    def _recorder(self, client: EventWriter, kind: str) -> Record:
        if not self._options.events:
            return no_events
        recorder = Recorder(
            client,
            api_version=names.API_VERSION,
            kind=kind,
            instance=f"{socket.gethostname()}-{os.getpid()}",
            clock=asyncio.get_running_loop().time,
        )
        self._recorders.append(recorder)
        return recorder.record
