"""The controller process: what it is made of, and when each part lives.

Credentials, connections and the server of metrics and probes frame everything else: they are there first and go last.
Within them the parts live by stages (`controller.engine.lifecycle`): reflectors always; who leads is settled once the
caches are full; recorders and controllers live while this process leads. On a stop keys in hand are finished or
abandoned at the deadline, and the lease is given away when no part acts any more.
Guarantees: `run` returns when asked to stop and raises when a part that must live has died or the lease is lost;
nothing it started outlives it; a process that stands by has warm caches, answers probes and scrapes, and does not
write.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry

from controller import __version__
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.election import Elector
from controller.engine.lifecycle import Lifecycle, Part, Run, When
from controller.engine.store import Store
from controller.engine.watch import ListWatcher
from controller.kube import credentials, managers
from controller.kube.client import REQUEST_DEADLINE, Client
from controller.kube.contexts import Choice
from controller.kube.kinds import Node
from controller.kube.resources import NODES, PODS
from controller.kube.transport import Answered
from controller.kube.verbs import Watcher
from controller.manager import Manager, Options
from controller.observe import caches as observed
from controller.observe.caches import Caches, Named
from controller.observe.loads import NodeLoads
from controller.reconcilers.api import Api, Fenced
from controller.serving.address import is_loopback, parse_address
from controller.serving.auth import ScrapeGuard
from controller.serving.health import Health, LoopMonitor, Queue
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

GRACE: Final = 10.0
"""Seconds that keys in hand get when the process is asked to stop."""


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """That only one of several processes acts at a time."""

    namespace: str | None = None
    """Where the lease is; None is the namespace that the credentials name, in which a pod may write by its role."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person can choose."""

    kubeconfig: str | None
    """Path of the credentials; None searches for them, as kubectl and pods do."""
    namespaces: tuple[str, ...]
    """Namespaces that are served, for credentials that do not reach beyond; empty is all."""
    controller_class: str | None
    """Class of the VMs that are served, so that controllers can share a cluster; None is the default class."""
    selector: str
    """Label selector of the VMs that are served among those of the class; empty is every VM of it."""
    bind_address: str
    """`host:port` of metrics and probes; an empty host is every address, port 0 a free port."""
    certificate: Files | None
    """What the server proves itself with; None speaks no TLS, which is enough on the loopback address."""
    metrics_auth: bool
    """Whether the API server has to allow a scrape: metrics name every VM."""
    vm_metrics: bool
    """Whether there are series for each VM and migration; in a large fleet they are most of what is scraped."""
    leader_election: LeaderElection | None
    """Lets several processes stand by for one another; None acts at once."""
    controllers: Options
    """How the controllers act."""
    choice: Choice = credentials.NOTHING_CHOSEN
    """What of the kubeconfig was chosen by name."""
    request_timeout: float | None = None
    """Seconds that a request may take; None is the usual deadline."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set.

    Raises CredentialsError, CertificateError or BindError when it cannot start, ControllerDiedError when it cannot go
    on.
    """
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
        rng = Random()  # noqa: S311 - jitter, no secret
        elector = _elector(client, settings, source, rng)
        own = [Part("loop-monitor", monitor.run)]
        if certificates is not None:
            own.append(Part("certificates", certificates.run))
        process = assemble(settings, client, elector, caches, nodes, parts=own, rng=rng, registry=registry)
        health = Health(
            monitor,
            client.ready,
            ended=process.lifecycle.ended,
            sources=process.reflectors,
            queues=process.queues,
        )
        async with Server(
            settings.bind_address,
            [scrapes(registry, series, _guard(client) if settings.metrics_auth else None), *health.routes()],
            flag="--metrics-bind-address",
            tls=certificates.context if certificates is not None else None,
        ) as server:
            _tell_start(settings, source, server.url)
            try:
                await process.lifecycle.run(stop, grace=GRACE)
            finally:
                if elector is not None:
                    await elector.release()
    _log.info("stopped")


class ApiServer(Api, Watcher, Protocol):
    """What the parts of the process ask of the API server; `controller.kube.client.Client` has it."""


@dataclass(frozen=True, slots=True)
class Process:
    """The parts of a process, and those of them that its health is judged by."""

    lifecycle: Lifecycle
    reflectors: list[Named]
    queues: Mapping[str, Queue]


def assemble(
    settings: Settings,
    client: ApiServer,
    elector: Elector | None,
    caches: Mapping[str | None, Caches],
    nodes: Store[Node],
    *,
    parts: Iterable[Part],
    rng: Random,
    registry: CollectorRegistry,
) -> Process:
    """Put everything together that needs the API server; `parts` live besides."""
    reflectors = _reflectors(client, settings, caches, nodes, rng=rng, registry=registry)
    api = client if elector is None else Fenced(client, lambda: elector.held)
    manager = Manager(settings.controllers, api, client, caches, nodes, rng=rng, registry=registry)
    election = [] if elector is None else [Part("leader election", elector.run, When.SYNCED)]
    lifecycle = Lifecycle(
        [
            *parts,
            *(Part(f"reflector of {name}", reflector.run) for name, reflector in reflectors),
            *election,
            *manager.parts,
        ],
        _gates(reflectors, caches, elector),
    )
    metrics.leadership(registry, _lease_name(settings), lambda: lifecycle.has_reached(When.LEADING))
    return Process(lifecycle, reflectors, manager.queues)


def _gates(
    reflectors: Iterable[Named], caches: Mapping[str | None, Caches], elector: Elector | None
) -> dict[When, Run]:
    """Say what the stages wait for."""

    async def synced() -> None:
        for _, reflector in reflectors:
            await reflector.answered.wait()
        _log.info("caches filled", vms=sum(len(cache.vms) for cache in caches.values()))

    return {When.SYNCED: synced} if elector is None else {When.SYNCED: synced, When.LEADING: elector.leading.wait}


def _tell_start(settings: Settings, source: credentials.Source, url: str) -> None:
    _log.info(
        "starting",
        version=__version__,
        cluster=str(source),
        namespaces=",".join(settings.namespaces) or "*",
        workers=settings.controllers.workers,
        metrics=f"{url}{exposition.PATH}",
    )
    _tell_exposure(settings)


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
    client: ListWatcher,
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
