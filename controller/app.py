"""The controller process: what it is made of, and the order in which it starts and stops.

Start: credentials, probes and metrics, reflectors; when the caches are full, the lease; when it is ours, workers. Stop:
no new keys, keys in hand finished or abandoned at the deadline, reflectors, the lease, server, connections last.
Guarantees: `run` returns when asked to stop and raises when a part that must live has died or the lease is lost;
nothing it started outlives it; who stands by has warm caches, answers probes and scrapes, and does not write.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry

from controller import __version__
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.election import Elector, LeaseLostError
from controller.engine.store import Store
from controller.kube import credentials, managers
from controller.kube.client import REQUEST_DEADLINE, Client
from controller.kube.contexts import Choice
from controller.kube.kinds import Node
from controller.kube.resources import NODES, PODS
from controller.kube.transport import Answered
from controller.manager import Manager, Options
from controller.observe import caches as observed
from controller.observe.caches import Caches, Named
from controller.observe.loads import NodeLoads
from controller.reconcilers.api import Fenced
from controller.serving.address import is_loopback, parse_address
from controller.serving.auth import ScrapeGuard
from controller.serving.health import Health, LoopMonitor
from controller.serving.routes import Answer, Guard, Request, Route
from controller.serving.server import Server
from controller.serving.tls import Certificates, Files
from controller.telemetry import exposition, logs, metrics
from controller.telemetry.exposition import Source
from controller.telemetry.migrations import MigrationMetrics, MigrationSeries
from controller.telemetry.nodes import NodeSeries
from controller.telemetry.transport import ReflectorMetrics, RequestMetrics, StoreMetrics
from controller.telemetry.vms import VMMetrics, VMSeries

_log = structlog.get_logger(__name__)

STOP_DEADLINE: Final = 10.0
"""Seconds that keys in hand get when the process is asked to stop."""


class ControllerDiedError(Exception):
    """A background task that must live has ended; only a restart helps."""


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Where the lease is; None means the namespace that the credentials name."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person can choose.

    `namespaces` empty means all, `controller_class` None the default class, `selector` empty every VM of the class;
    without a `certificate` the server speaks no TLS, with `metrics_auth` scrapes need a token; without
    `leader_election` the process acts at once. `choice` is what of the kubeconfig was chosen by name; a request may
    take `request_timeout` seconds, None being the usual.
    """

    kubeconfig: str | None
    namespaces: tuple[str, ...]
    controller_class: str | None
    selector: str
    bind_address: str
    certificate: Files | None
    metrics_auth: bool
    vm_metrics: bool
    leader_election: LeaderElection | None
    controllers: Options
    choice: Choice = credentials.NOTHING_CHOSEN
    request_timeout: float | None = None


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set.

    Raises CredentialsError, CertificateError or BindError when it cannot start, ControllerDiedError when it cannot go
    on.
    """
    rng = Random()  # noqa: S311 - jitter, no secret
    certificates = Certificates(settings.certificate) if settings.certificate is not None else None
    source = credentials.find(settings.kubeconfig, settings.choice)
    monitor = LoopMonitor()
    registry = metrics.new_registry()
    metrics.event_loop_lag(registry, lambda: monitor.lag)
    logs.dropped_lines(registry)
    caches = observed.of(settings.namespaces)
    nodes: Store[Node] = Store()
    series = _series(registry, settings, caches, nodes)
    async with await _client(settings, source, RequestMetrics(registry).answered) as client:
        elector = _elector(client, settings, source, rng)
        health = Health(monitor, client.ready)
        async with Server(
            settings.bind_address,
            [scrapes(registry, series, _guard(client) if settings.metrics_auth else None), *health.routes()],
            flag="--metrics-bind-address",
            tls=certificates.context if certificates is not None else None,
        ) as server:
            _log.info(
                "starting",
                version=__version__,
                cluster=str(source),
                namespaces=",".join(settings.namespaces) or "*",
                workers=settings.controllers.workers,
                metrics=f"{server.url}{exposition.PATH}",
            )
            _tell_exposure(settings)
            reflectors = _reflectors(client, settings, caches, nodes, rng=rng, registry=registry)
            background = [
                asyncio.create_task(monitor.run(), name="loop-monitor"),
                *(asyncio.create_task(reflector.run(), name=f"reflector of {name}") for name, reflector in reflectors),
            ]
            if certificates is not None:
                background.append(asyncio.create_task(certificates.run(), name="certificates"))
            health.watch(background, reflectors)
            leadership = metrics.Leadership(registry, _lease_name(settings))
            manager = Manager(settings.controllers, caches, nodes, rng)
            manager.instrument(registry)
            health.watch_queues(manager.queues)
            try:
                if await _first(stop, background, _all_synced(reflectors)):
                    _log.info("caches filled", vms=sum(len(cache.vms) for cache in caches.values()))
                    if elector is None or await _first(stop, background, elector.acquire()):
                        leadership.acts(True)
                        background += manager.start(
                            client if elector is None else Fenced(client, lambda: elector.held), events=client
                        )
                        if elector is not None:
                            background.append(asyncio.create_task(elector.lead(), name="leader election"))
                        await _first(stop, background)
                _log.info("stopping")
            finally:
                # Who must end for another reason than being asked to has no time to lose, and may have no lease.
                await manager.stop(STOP_DEADLINE if stop.is_set() else 0.0)
                await _cancel(background)
                if elector is not None:
                    await elector.release()
    _log.info("stopped")


async def _client(settings: Settings, source: credentials.Source, answered: Answered) -> Client:
    timeout = settings.request_timeout
    return await Client.connect(source, answered=answered, deadline=REQUEST_DEADLINE if timeout is None else timeout)


def _guard(client: Client) -> ScrapeGuard:
    return ScrapeGuard(client, exposition.PATH, secret=secrets.token_bytes(32), clock=asyncio.get_running_loop().time)


def scrapes(registry: CollectorRegistry, series: Sequence[Source], guard: Guard | None) -> Route:
    """Return the route of the metrics: one registry, and the large families besides it."""

    async def scrape(request: Request) -> Answer:
        content, headers = await exposition.render(
            registry,
            series,
            accept=request.headers.get("accept", ""),
            accept_encoding=request.headers.get("accept-encoding", ""),
        )
        return Answer(content, headers=headers)

    return Route("GET", exposition.PATH, scrape, guard=guard)


def _tell_exposure(settings: Settings) -> None:
    """Say what others than this machine can see of the server, where that may be more than somebody meant."""
    host, _ = parse_address(settings.bind_address)
    if is_loopback(host):
        return
    if not settings.metrics_auth:
        _log.info("anybody who reaches the address may scrape; --metrics-auth lets the API server decide who may")
    elif settings.certificate is None:
        _log.warning("tokens of scrapes travel unencrypted; set --metrics-cert-file and --metrics-key-file")


def _lease_name(settings: Settings) -> str:
    """Return the lease's name: each class has one."""
    return "-".join(filter(None, (managers.CONTROLLER, settings.controller_class)))


def _elector(client: Client, settings: Settings, source: credentials.Source, rng: Random) -> Elector | None:
    election = settings.leader_election
    if election is None:
        return None
    return Elector(
        client,
        namespace=election.namespace or credentials.namespace(source),
        name=_lease_name(settings),
        identity=f"{socket.gethostname()}_{uuid4()}",
        clock=_uptime,
        rng=rng,
    )


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


def _uptime() -> float:
    """Return monotonic seconds; where the system can tell, those it was suspended for count, as they do for others."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def _series(
    registry: CollectorRegistry, settings: Settings, caches: Mapping[str | None, Caches], nodes: Store[Node]
) -> list[Source]:
    """Derive metrics from caches that are still empty; return the families that are too large for a registry."""
    vms = [cache.vms for cache in caches.values()]
    migrations = [cache.migrations for cache in caches.values()]
    pods = [cache.pods for cache in caches.values()]
    VMMetrics(registry, vms)
    MigrationMetrics(registry, migrations)
    StoreMetrics(
        registry,
        {
            VIRTUAL_MACHINES.plural: vms,
            MIGRATIONS.plural: migrations,
            PODS.plural: pods,
            NODES.plural: [nodes],
        },
    )
    found: list[Source] = [NodeSeries(NodeLoads(nodes, pods, settings.controllers.policy.reference))]
    if settings.vm_metrics:
        found += [VMSeries(vms), MigrationSeries(migrations)]
    return found


def _reflectors(
    client: Client,
    settings: Settings,
    caches: Mapping[str | None, Caches],
    nodes: Store[Node],
    *,
    rng: Random,
    registry: CollectorRegistry,
) -> list[Named]:
    """Return a reflector for every cache, each with its name for people."""
    return observed.reflectors(
        client,
        caches,
        nodes,
        controller_class=settings.controller_class,
        selector=settings.selector,
        rng=rng,
        metrics=ReflectorMetrics(registry, asyncio.get_running_loop().time).reflector,
    )


async def _all_synced(reflectors: list[Named]) -> None:
    for _, reflector in reflectors:
        await reflector.answered.wait()


async def _first(
    stop: asyncio.Event, background: list[asyncio.Task[None]], wanted: Coroutine[Any, Any, None] | None = None
) -> bool:
    """Wait for `wanted` (True) or `stop` (False).

    Raises ControllerDiedError, which says why, if a background task ends first or `wanted` fails.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    waiting = (
        asyncio.create_task(wanted, name=getattr(wanted, "__qualname__", "wanted")) if wanted is not None else None
    )
    mine: set[asyncio.Task[Any]] = {stopping} if waiting is None else {stopping, waiting}
    try:
        await asyncio.wait({*mine, *background}, return_when=asyncio.FIRST_COMPLETED)
        for dead in background:
            if dead.done():
                raise _death(dead)
        if waiting is None or not waiting.done():
            return False
        if waiting.cancelled() or waiting.exception() is not None:
            raise _death(waiting)
        return True
    finally:
        await _cancel(mine)


def _death(task: asyncio.Task[Any]) -> ControllerDiedError:
    """Return the error that tells why a task has ended that must live or come to its end well."""
    why = None if task.cancelled() else task.exception()
    if isinstance(why, LeaseLostError):
        text = str(why)
    else:
        cause = "it was cancelled" if task.cancelled() else f"{type(why).__name__}: {why}" if why else "it returned"
        text = f"task {task.get_name()} has ended: {cause}"
        _log.error("a task that must live has ended", task=task.get_name(), cause=cause, exc_info=why)
    error = ControllerDiedError(text)
    error.__cause__ = why
    return error


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
