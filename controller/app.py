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
from typing import Final, TypeAlias

import structlog
from prometheus_client import CollectorRegistry

from controller import __version__
from controller.domain import names
from controller.domain.launcher import LauncherPolicy
from controller.domain.objects import Node, Pod, VirtualMachine
from controller.engine.events import Recorder
from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from controller.engine.reflector import Reflector
from controller.engine.store import Store
from controller.engine.workers import Workers
from controller.engine.workqueue import WorkQueue
from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.resources import NODES, PODS, VIRTUAL_MACHINES
from controller.reconcilers.sources import Caches, feed
from controller.reconcilers.vm import VMReconciler, no_events
from controller.telemetry import metrics
from controller.telemetry.health import Health, LoopMonitor
from controller.telemetry.server import Server

_log = structlog.get_logger(__name__)

AnyReflector: TypeAlias = Reflector[VirtualMachine] | Reflector[Pod] | Reflector[Node]

STOP_DEADLINE: Final = 10.0
"""Seconds that keys in hand get when the process is asked to stop."""
_CONTROLLER: Final = "virtualmachine"


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
    policy: LauncherPolicy


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set.

    Raises CredentialsError or BindError when it cannot start, ControllerDiedError when it cannot go on.
    """
    rng = Random()  # noqa: S311 - jitter, no secret
    source = credentials.find(settings.kubeconfig)
    monitor = LoopMonitor()
    registry = metrics.new_registry()
    async with await Client.connect(source) as client:
        health = Health(monitor, client.ready)
        async with Server(settings.bind_address, registry, health) as server:
            _log.info(
                "starting",
                version=__version__,
                cluster=str(source),
                namespaces=",".join(settings.namespaces) or "*",
                workers=settings.workers,
                metrics=f"{server.url}/metrics",
            )
            caches = {namespace: Caches() for namespace in settings.namespaces or (None,)}
            nodes: Store[Node] = Store()
            reflectors = _reflectors(client, caches, nodes, rng)
            background = [
                asyncio.create_task(monitor.run(), name="loop-monitor"),
                *(asyncio.create_task(reflector.run(), name=f"reflector of {name}") for name, reflector in reflectors),
            ]
            record = no_events
            if settings.events:
                recorder = _recorder(client, registry)
                record = recorder.record
                background.append(asyncio.create_task(recorder.run(), name="event-recorder"))
            reconciler = VMReconciler(client, caches, nodes, settings.policy, record=record, rng=rng)
            health.watch(background, reflectors)
            queue = _queue(registry, rng)
            feed(queue.add, caches, nodes)
            workers = Workers(
                queue,
                reconciler.reconcile,
                noun="vm",
                count=settings.workers,
                metrics=metrics.ReconcileMetrics(registry, _CONTROLLER, settings.workers),
            )
            try:
                synced = asyncio.create_task(_all_synced(reflectors), name="sync")
                if await _first(stop, background, synced):
                    _log.info("caches filled", vms=sum(len(cache.vms) for cache in caches.values()))
                    reconciler.begin()
                    workers.start()
                    await _first(stop, background)
                _log.info("stopping")
            finally:
                await workers.stop(STOP_DEADLINE)
                await _cancel(background)
    _log.info("stopped")


def _reflectors(
    client: Client, caches: Mapping[str | None, Caches], nodes: Store[Node], rng: Random
) -> list[tuple[str, AnyReflector]]:
    found: list[tuple[str, AnyReflector]] = [("nodes", Reflector(client, NODES, nodes, rng=rng))]
    for namespace, cache in caches.items():
        where = f" in {namespace}" if namespace else ""
        found += [
            (f"VMs{where}", Reflector(client, VIRTUAL_MACHINES, cache.vms, rng=rng, namespace=namespace)),
            (
                f"pods{where}",
                Reflector(client, PODS, cache.pods, rng=rng, namespace=namespace, label_selector=names.VM_LABEL),
            ),
        ]
    return found


def _recorder(client: Client, registry: CollectorRegistry) -> Recorder:
    recorder = Recorder(
        client,
        api_version=names.API_VERSION,
        kind=names.VM_KIND,
        instance=f"{socket.gethostname()}-{os.getpid()}",
        clock=asyncio.get_running_loop().time,
    )
    metrics.dropped_events(registry, lambda: recorder.dropped)
    return recorder


def _queue(registry: CollectorRegistry, rng: Random) -> WorkQueue[str]:
    clock = asyncio.get_running_loop().time
    limiter = DefaultLimiter(ItemExponential(rng), Bucket(clock))
    queue: WorkQueue[str] = WorkQueue(limiter, metrics=metrics.QueueMetrics(registry, _CONTROLLER))
    registry.register(metrics.UnfinishedWork(queue, _CONTROLLER))
    return queue


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
