"""The controller process: what it is made of, and the order in which it starts and stops.

Start: credentials, probes and metrics, reflectors; when the caches are full, workers. Stop: no new keys, keys in
hand finished or abandoned at the deadline, reflectors, server, connections last. Guarantees: `run` returns when
asked to stop and raises when a part that must live has died; nothing it started outlives it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from controller import __version__
from controller.domain import names
from controller.domain.launcher import LauncherPolicy
from controller.domain.objects import Node, Pod, VirtualMachine, VirtualMachineMigration
from controller.engine.events import Recorder
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.reflector import Reflector
from controller.engine.store import HasMetadata, Store
from controller.engine.workers import Workers
from controller.engine.workqueue import WorkQueue
from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.resources import MIGRATIONS, NODES, PODS, VIRTUAL_MACHINES, Resource
from controller.reconcilers.migration import MigrationReconciler
from controller.reconcilers.sources import Caches, feed, feed_migrations
from controller.reconcilers.turns import Limits, Turns
from controller.reconcilers.vm import VMReconciler, no_events
from controller.telemetry import metrics
from controller.telemetry.exposition import Source
from controller.telemetry.health import Health, LoopMonitor
from controller.telemetry.migrations import MigrationMetrics, MigrationSeries
from controller.telemetry.nodes import NodeMetrics
from controller.telemetry.server import Server
from controller.telemetry.transport import ReflectorMetrics, RequestMetrics
from controller.telemetry.vms import VMMetrics, VMSeries

_log = structlog.get_logger(__name__)

T = TypeVar("T", bound=HasMetadata)
AnyReflector: TypeAlias = (
    Reflector[VirtualMachine] | Reflector[Pod] | Reflector[Node] | Reflector[VirtualMachineMigration]
)

STOP_DEADLINE: Final = 10.0
"""Seconds that keys in hand get when the process is asked to stop."""
_VMS: Final = "virtualmachine"
_MIGRATIONS: Final = "virtualmachinemigration"


class ControllerDiedError(Exception):
    """A background task that must live has ended; only a restart helps."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person can choose. `namespaces` empty means all."""

    kubeconfig: str | None
    namespaces: tuple[str, ...]
    workers: int
    bind_address: str
    events: bool
    vm_metrics: bool
    policy: LauncherPolicy
    limits: Limits


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set.

    Raises CredentialsError or BindError when it cannot start, ControllerDiedError when it cannot go on.
    """
    rng = Random()  # noqa: S311 - jitter, no secret
    source = credentials.find(settings.kubeconfig)
    monitor = LoopMonitor()
    registry = metrics.new_registry()
    metrics.event_loop_lag(registry, lambda: monitor.lag)
    leadership = metrics.Leadership(registry, names.CONTROLLER_NAME)
    caches = {namespace: Caches() for namespace in settings.namespaces or (None,)}
    nodes: Store[Node] = Store()
    series = _series(registry, settings, caches, nodes)
    async with await Client.connect(source, answered=RequestMetrics(registry).answered) as client:
        health = Health(monitor, client.ready)
        async with Server(settings.bind_address, registry, health, series) as server:
            _log.info(
                "starting",
                version=__version__,
                cluster=str(source),
                namespaces=",".join(settings.namespaces) or "*",
                workers=settings.workers,
                metrics=f"{server.url}/metrics",
            )
            reflectors = _reflectors(client, caches, nodes, rng, registry)
            background = [
                asyncio.create_task(monitor.run(), name="loop-monitor"),
                *(asyncio.create_task(reflector.run(), name=f"reflector of {name}") for name, reflector in reflectors),
            ]
            record, record_migration = no_events, no_events
            if settings.events:
                recorders = [_recorder(client, kind) for kind in (names.VM_KIND, names.MIGRATION_KIND)]
                metrics.dropped_events(registry, lambda: sum(recorder.dropped for recorder in recorders))
                record, record_migration = (recorder.record for recorder in recorders)
                background += [asyncio.create_task(item.run(), name="event-recorder") for item in recorders]
            health.watch(background, reflectors)
            queues = {name: _queue(registry, rng, name) for name in (_VMS, _MIGRATIONS)}
            registry.register(metrics.UnfinishedWork(queues))
            feed(queues[_VMS].add, caches, nodes)
            feed_migrations(queues[_MIGRATIONS].add, caches)
            vms = VMReconciler(client, caches, nodes, settings.policy, record=record, rng=rng)
            migrations = MigrationReconciler(
                client,
                caches,
                nodes,
                settings.policy,
                Turns(settings.limits),
                record=record_migration,
                wake=queues[_MIGRATIONS].add,
            )
            workers = [
                Workers(
                    queues[name],
                    reconcile,
                    noun="vm",
                    count=settings.workers,
                    metrics=metrics.ReconcileMetrics(registry, name, settings.workers),
                )
                for name, reconcile in ((_VMS, vms.reconcile), (_MIGRATIONS, migrations.reconcile))
            ]
            try:
                synced = asyncio.create_task(_all_synced(reflectors), name="sync")
                if await _first(stop, background, synced):
                    _log.info("caches filled", vms=sum(len(cache.vms) for cache in caches.values()))
                    vms.begin()
                    migrations.begin()
                    for group in workers:
                        group.start()
                    leadership.acts(True)
                    await _first(stop, background)
                _log.info("stopping")
            finally:
                await asyncio.gather(*(group.stop(STOP_DEADLINE) for group in workers))
                await _cancel(background)
    _log.info("stopped")


def _series(
    registry: CollectorRegistry, settings: Settings, caches: Mapping[str | None, Caches], nodes: Store[Node]
) -> list[Source]:
    """Derive metrics from caches that are still empty; return the families that are too large for a registry."""
    vms = [cache.vms for cache in caches.values()]
    migrations = [cache.migrations for cache in caches.values()]
    VMMetrics(registry, vms)
    MigrationMetrics(registry, migrations)
    found: list[Source] = [NodeMetrics(nodes, [cache.pods for cache in caches.values()], settings.policy.reference)]
    if settings.vm_metrics:
        found += [VMSeries(vms), MigrationSeries(migrations)]
    return found


def _reflectors(
    client: Client,
    caches: Mapping[str | None, Caches],
    nodes: Store[Node],
    rng: Random,
    registry: CollectorRegistry,
) -> list[tuple[str, AnyReflector]]:
    """Make a reflector of every cache, each with its name for people."""
    metrics = ReflectorMetrics(registry, asyncio.get_running_loop().time)

    def reflector(
        resource: Resource[T], store: Store[T], *, namespace: str | None = None, label_selector: str | None = None
    ) -> Reflector[T]:
        name = f"{resource.plural}/{namespace}" if namespace else resource.plural
        return Reflector(
            client,
            resource,
            store,
            rng=rng,
            namespace=namespace,
            label_selector=label_selector,
            metrics=metrics.reflector(name),
        )

    found: list[tuple[str, AnyReflector]] = [("nodes", reflector(NODES, nodes))]
    for namespace, cache in caches.items():
        where = f" in {namespace}" if namespace else ""
        found += [
            (f"VMs{where}", reflector(VIRTUAL_MACHINES, cache.vms, namespace=namespace)),
            (f"migrations{where}", reflector(MIGRATIONS, cache.migrations, namespace=namespace)),
            (f"pods{where}", reflector(PODS, cache.pods, namespace=namespace, label_selector=names.VM_LABEL)),
        ]
    return found


def _recorder(client: Client, kind: str) -> Recorder:
    return Recorder(
        client,
        api_version=names.API_VERSION,
        kind=kind,
        instance=f"{socket.gethostname()}-{os.getpid()}",
        clock=asyncio.get_running_loop().time,
    )


def _queue(registry: CollectorRegistry, rng: Random, name: str) -> WorkQueue[str]:
    limiter = DefaultLimiter(ItemExponential(rng), Bucket(asyncio.get_running_loop().time))
    return WorkQueue(limiter, metrics=metrics.QueueMetrics(registry, name))


async def _all_synced(reflectors: list[tuple[str, AnyReflector]]) -> None:
    for _, reflector in reflectors:
        await reflector.synced.wait()


async def _first(
    stop: asyncio.Event, background: list[asyncio.Task[None]], wanted: asyncio.Task[None] | None = None
) -> bool:
    """Wait for `wanted` (True) or `stop` (False). Raises ControllerDiedError if a background task ends first."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    mine: set[asyncio.Task[None] | asyncio.Task[bool]] = {stopping} if wanted is None else {stopping, wanted}
    try:
        await asyncio.wait({*mine, *background}, return_when=asyncio.FIRST_COMPLETED)
        for dead in background:
            if dead.done():
                raise ControllerDiedError(f"task {dead.get_name()} has ended") from dead.exception()
        return wanted is not None and wanted.done()
    finally:
        for task in mine:
            task.cancel()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
