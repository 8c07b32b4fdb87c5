"""The controller process: its parts, and the stage in which each of them runs.

Credentials, connections and the server of metrics and probes start first and stop last. Within them the parts run by
stages (`controller.engine.lifecycle`): reflectors always; leader election once the caches are synced; event recorders
and controllers while this process leads. At a stop, keys in process are finished or abandoned at the deadline; the
lease is released after the last part has stopped.
Guarantees: `run` returns after a request to stop, and raises when a part has died or the lease is lost; no part
outlives it, except one that ignores its cancellation, which is logged; a standby has synced caches, answers probes and
scrapes, and does not write.
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
from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.settings import PublishedSettings
from controller.engine.election import Elector
from controller.engine.lifecycle import Lifecycle, Part, Run, When
from controller.engine.store import Store
from controller.kube import credentials
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
from controller.reconcilers.settings import SettingsPublisher
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
"""Seconds for keys in process to finish when the process is asked to stop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of the process."""

    kubeconfig: str | None
    """Path of the kubeconfig; None searches for credentials as kubectl and in-cluster clients do."""
    namespaces: tuple[str, ...]
    """The namespaces that are reconciled, for credentials without cluster-wide access; empty is all."""
    controller_class: str | None
    """The class of the VMs that are reconciled, so that controllers can share a cluster; None is the default class."""
    selector: str
    """Label selector of the VMs that are reconciled among those of the class; empty selects all."""
    bind_address: str
    """`host:port` of metrics and probes; an empty host is every address, port 0 a free port."""
    certificate: Files | None
    """The server's certificate; None is plain HTTP, which is enough on the loopback address."""
    metrics_auth: bool
    """Whether the API server has to authorize scrapes, since metrics name every VM."""
    vm_metrics: bool
    """Whether there are series for each VM and migration, which are most of a large fleet's scrape."""
    leader_election: bool
    """Whether only one of several processes acts at a time, by a Lease."""
    home: str | None
    """The namespace of the Lease and of the published settings; None is that of the credentials, where a pod's Role
    allows writes."""
    controllers: Options
    """The options of the controllers."""
    choice: Choice = credentials.NOTHING_CHOSEN
    """The context, cluster, user and namespace that were chosen by kubectl's flags."""
    request_timeout: float | None = None
    """Deadline of a request in seconds; None is `REQUEST_DEADLINE`."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set.

    Raises CredentialsError, CertificateError or BindError when it cannot start, ControllerDiedError when it cannot
    continue.
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
        home = settings.home or credentials.namespace(source)
        elector = _elector(client, settings, home, rng) if settings.leader_election else None
        own = [Part("loop-monitor", monitor.run)]
        if certificates is not None:
            own.append(Part("certificates", certificates.run))
        process = assemble(settings, client, elector, caches, nodes, home=home, parts=own, rng=rng, registry=registry)
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
            _log_start(settings, source, server.url)
            try:
                await process.lifecycle.run(stop, grace=GRACE)
            finally:
                if elector is not None:
                    await elector.release()
    _log.info("stopped")


class ApiServer(Api, Watcher, Protocol):
    """The verbs that the parts of the process need; `controller.kube.client.Client` implements them."""


@dataclass(frozen=True, slots=True)
class Process:
    """The assembled parts of a process, with those that its probes check."""

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
    home: str,
    parts: Iterable[Part],
    rng: Random,
    registry: CollectorRegistry,
) -> Process:
    """Assemble the parts that need the API server; `parts` are further ones that run beside them.

    `home` is the namespace in which the settings are published.
    """
    reflectors = observed.reflectors(
        client,
        caches,
        nodes,
        controller_class=settings.controller_class,
        selector=settings.selector,
        rng=rng,
        metrics=ReflectorMetrics(registry, asyncio.get_running_loop().time).reflector,
    )
    api = client if elector is None else Fenced(client, lambda: elector.held)
    manager = Manager(settings.controllers, api, client, caches, nodes, rng=rng, registry=registry)
    name = names.installation(settings.controller_class)
    publisher = SettingsPublisher(
        api,
        published(settings),
        namespace=home,
        name=name,
        clock=asyncio.get_running_loop().time,
        rng=rng,
    )
    election = [] if elector is None else [Part("leader election", elector.run, When.SYNCED)]
    lifecycle = Lifecycle(
        [
            *parts,
            *(Part(f"reflector of {name}", reflector.run) for name, reflector in reflectors),
            *election,
            Part("publisher of the settings", publisher.run, When.LEADING),
            *manager.parts,
        ],
        _gates(reflectors, caches, elector),
    )
    metrics.leadership(
        registry, names.installation(settings.controller_class), lambda: lifecycle.has_reached(When.LEADING)
    )
    return Process(lifecycle, reflectors, manager.queues)


def published(settings: Settings) -> PublishedSettings:
    """Return the settings that tools must know."""
    options = settings.controllers
    return PublishedSettings(
        policy=options.policy,
        limits=options.limits,
        strategy=options.strategy,
        live=options.live,
        version=__version__,
    )


def _gates(
    reflectors: Iterable[Named], caches: Mapping[str | None, Caches], elector: Elector | None
) -> dict[When, Run]:
    """Return the condition that each stage waits for."""

    async def synced() -> None:
        for _, reflector in reflectors:
            await reflector.answered.wait()
        _log.info("caches filled", vms=sum(len(cache.vms) for cache in caches.values()))

    return {When.SYNCED: synced} if elector is None else {When.SYNCED: synced, When.LEADING: elector.leading.wait}


def _log_start(settings: Settings, source: credentials.Source, url: str) -> None:
    _log.info(
        "starting",
        version=__version__,
        cluster=str(source),
        namespaces=",".join(settings.namespaces) or "*",
        workers=settings.controllers.workers,
        metrics=f"{url}{exposition.PATH}",
    )
    _log_exposure(settings)


async def _client(settings: Settings, source: credentials.Source, answered: Answered) -> Client:
    timeout = settings.request_timeout
    return await Client.connect(source, answered=answered, deadline=REQUEST_DEADLINE if timeout is None else timeout)


def _guard(client: Client) -> ScrapeGuard:
    return ScrapeGuard(client, exposition.PATH, secret=secrets.token_bytes(32), clock=asyncio.get_running_loop().time)


def scrapes(registry: CollectorRegistry, series: Sequence[Source], guard: Guard | None) -> Route:
    """Return the route of the metrics: those of one registry, and the large families in `series`."""

    async def scrape(request: Request) -> Answer:
        content, headers = await exposition.render(
            registry,
            series,
            accept=request.headers.get("accept", ""),
            accept_encoding=request.headers.get("accept-encoding", ""),
        )
        return Answer(content, headers=headers)

    return Route("GET", exposition.PATH, scrape, guard=guard)


def _log_exposure(settings: Settings) -> None:
    """Log when other machines can scrape without authorization, or can read the tokens of scrapes."""
    host, _ = parse_address(settings.bind_address)
    if is_loopback(host):
        return
    if not settings.metrics_auth:
        _log.info(
            "every client that reaches the address may scrape; set --metrics-auth for authorization by the API server"
        )
    elif settings.certificate is None:
        _log.warning("tokens of scrapes travel unencrypted; set --metrics-cert-file and --metrics-key-file")


def _elector(client: Client, settings: Settings, namespace: str, rng: Random) -> Elector:
    return Elector(
        client,
        namespace=namespace,
        name=names.installation(settings.controller_class),
        identity=f"{socket.gethostname()}_{uuid4()}",
        clock=_uptime,
        rng=rng,
    )


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


def _uptime() -> float:
    """Return monotonic seconds, where possible with the time of a suspension, which counts for other processes, too."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def _series(
    registry: CollectorRegistry, settings: Settings, caches: Mapping[str | None, Caches], nodes: Store[Node]
) -> list[Source]:
    """Register the metrics of caches, which have to be empty still; return the families too large for the registry."""
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
    found: list[Source] = [NodeSeries(NodeLoads(nodes, pods, settings.controllers.policy.reference, vms))]
    if settings.vm_metrics:
        live, speed = settings.controllers.live, settings.controllers.policy.speed
        found += [VMSeries(vms), MigrationSeries(migrations, capacity=live.capacity, speed=speed)]
    return found
