"""A controller on the reflectors, listeners and metrics of the product, and an API server with malformed objects.

Guarantees: caches are filled as over the wire, by JSON through the codec and a reflector, in lists and watches. A
reflector that ends, a listener that fails, or an error of a reconcile, but an error of the API server that workers
retry, is an AssertionError that names the objects.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from controller import app
from controller.domain.migration.limits import Limits
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.store import Store
from controller.kube import errors
from controller.kube.kinds import Node, Pod
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.verbs import Page
from controller.manager import Options
from controller.observe import caches as observed
from controller.observe.caches import Caches
from controller.observe.loads import NodeLoads
from controller.serving.health import Health, LoopMonitor
from controller.telemetry import metrics
from controller.telemetry.exposition import render
from controller.telemetry.nodes import _FAMILIES as FAMILIES
from controller.telemetry.transport import ReflectorMetrics
from tests.model.cluster import Cluster
from tests.model.rules import Document
from tests.model.watches import Events
from tests.properties.oddities import KINDS
from tests.unit.reconcilers.harness import POLICY, Process

T = TypeVar("T")
ODD_MARK: Final = "odd"
"""A field that marks malformed objects; only their API server reads it."""
NODE_NAMES: Final = ("node-1", "node-2", "node-3")
"""The well-formed nodes; the scheduler chooses the first that a pod's affinity allows."""
SETTINGS: Final = app.Settings(
    kubeconfig=None,
    namespaces=(),
    controller_class=None,
    selector="",
    bind_address="",
    certificate=None,
    metrics_auth=False,
    vm_metrics=True,
    leader_election=False,
    home=None,
    controllers=Options(policy=POLICY, limits=Limits(), workers=1, events=False),
)


class OddCluster(Cluster):
    """An API server with malformed objects, too; its scheduler and kubelets ignore them."""

    def pods(self) -> list[Document]:
        """Return every well-formed pod."""
        return [pod for pod in super().pods() if ODD_MARK not in pod]

    def choice(self, pod: Document) -> str | None:
        """Return a node that is not malformed, too."""
        affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
        fields = terms[0].get("matchFields", [])
        return next(
            (
                node
                for node in NODE_NAMES
                if all((node in field["values"]) == (field["operator"] == "In") for field in fields)
            ),
            None,
        )

    def add_large_node(self, name: str) -> None:
        """Create a node with capacity for all pods."""
        metadata = {"name": name, "namespace": "", "labels": {"type": "kwok"}}
        status = {"allocatable": {"cpu": "1000000", "memory": "1000Ti", "pods": "100000"}}
        self.add(NODES.plural, {"metadata": metadata, "spec": {}, "status": status})

    def store_malformed(self, plural: str, document: Document) -> None:
        """Store a malformed object."""
        self.store(plural, {**document, ODD_MARK: True})

    def deliver_event(self, plural: str, document: Document, *, deleted: bool = False) -> None:
        """Let watches deliver an object that the server does not have."""
        self.watches.tell(plural, document, document, deleted=deleted)

    def remove_odd(self) -> None:
        """Delete all malformed objects at once."""
        for (plural, _), document in list(self.objects.items()):
            if ODD_MARK in document:
                self.discard(plural, document)

    def finish_odd(self) -> None:
        """Delete malformed pods that are terminating, and pods whose VM no longer exists."""
        vms = {vm["metadata"]["uid"] for vm in self.of(VIRTUAL_MACHINES)}
        for document in self.of(PODS):
            owners = document["metadata"].get("ownerReferences")
            orphan = ODD_MARK not in document and not any(owner["uid"] in vms for owner in owners or ())
            if orphan or (ODD_MARK in document and "deletionTimestamp" in document["metadata"]):
                self.discard(PODS.plural, document)


class Wire:
    """Lists and watches of a server without selectors: a malformed object may have no labels."""

    def __init__(self, cluster: OddCluster) -> None:
        self._cluster = cluster
        cluster.watches.held = []

    async def list_page(self, resource: Resource[T], *, limit: int, continue_token: str = "", **_: Any) -> Page[T]:
        """Return a page of one kind."""
        return await self._cluster.list_page(resource, limit=limit, continue_token=continue_token)

    def watch(self, resource: Resource[Any], *, resource_version: str, life: float, **_: Any) -> Events:
        """Watch one kind; changes are delivered by `deliver`."""
        return self._cluster.watch(resource, resource_version=resource_version, life=life)

    async def deliver(self, *, expired: bool = False) -> None:
        """Deliver all changes to every watch; an expired watch is followed by a list."""
        watches = self._cluster.watches
        before = set(watches.open)
        if expired:
            watches.expire()
        async with asyncio.timeout(600):  # of the loop's virtual time
            await watches.deliver(len(KINDS))
        assert not expired or not before & set(watches.open)


class OddWorld:
    """One controller with reflectors, and with all listeners of the product."""

    def __init__(self) -> None:
        self.cluster = OddCluster()
        self.process = Process(self.cluster)
        self.wire = Wire(self.cluster)
        self.registry = metrics.new_registry()
        caches: dict[str | None, Caches] = {None: self.process.caches}
        self.series = app._series(self.registry, SETTINGS, caches, self.process.nodes)
        reflectors = observed.reflectors(
            self.wire,
            caches,
            self.process.nodes,
            controller_class=SETTINGS.controller_class,
            selector=SETTINGS.selector,
            rng=Random(1),  # noqa: S311 - no secret
            metrics=ReflectorMetrics(self.registry, asyncio.get_running_loop().time).reflector,
        )
        self.tasks = [asyncio.create_task(reflector.run(), name=name) for name, reflector in reflectors]
        self.health = Health(
            LoopMonitor(),
            self._reached,
            ended=lambda: [task.get_name() for task in self.tasks if task.done()],
            sources=reflectors,
            queues={},
        )
        self._due: dict[tuple[str, str], float] = {}

    async def _reached(self) -> None:
        """Stand for an API server that answers."""

    async def close(self) -> None:
        """End the reflectors."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _stores(self) -> list[Store[Any]]:
        caches = self.process.caches
        return [caches.vms, caches.migrations, caches.pods, self.process.nodes]

    async def deliver(self, *, expired: bool = False) -> None:
        """Deliver all changes to the caches; no reflector may end, no listener fail."""
        await self.wire.deliver(expired=expired)
        assert [task.get_name() for task in self.tasks if task.done()] == []
        failures = {one.name: one.failures for store in self._stores() for one in store.subscriptions if one.failures}
        assert failures == {}, "listeners failed"

    async def work(self) -> None:
        """Reconcile every key that is due, all concurrently."""
        now = self.cluster.now.timestamp()
        queued = [at for at in self.process.queued() if self._due.get(at, 0.0) <= now]
        results = await asyncio.gather(*(self._work(*at) for at in queued))
        for at, pause in zip(queued, results, strict=True):
            self._due[at] = now + pause

    async def _work(self, queue: str, key: str) -> float:
        """Act as a worker on a key; return the seconds after which it is due again, if it is queued again."""
        pending = self.process.pending if queue == "vms" else self.process.moving
        pending.pop(key, None)
        reconciler = self.process.reconciler if queue == "vms" else self.process.migrations
        try:
            result = await reconciler.reconcile(key)
        except errors.KubeError:
            pause = 5.0
        except Exception as error:
            raise AssertionError(f"reconciling {key} of {queue} raised {error!r}") from error
        else:
            if not result.retry and result.requeue_after is None:
                return 0.0
            pause = result.requeue_after or 5.0
        pending[key] = None
        return pause

    async def until(self, holds: Callable[[], bool], rounds: int = 80) -> None:
        """Run controller, scheduler, kubelets and garbage collector until a condition holds."""
        for _ in range(rounds):
            await self.deliver()
            await self.work()
            if holds():
                return
            self.cluster.run_pods()
            self.cluster.finish_deletions()
            self.cluster.finish_odd()
            self.cluster.pass_time(1)
        raise AssertionError("the well-formed VMs are not served")

    async def judge(self) -> None:
        """Check that probes and scrapes answer, and that each node's metrics are those of a fresh process."""
        assert self.health.health() == []
        assert await self.health.readiness() == []
        body = await render(self.registry, self.series, accept="", accept_encoding="")
        samples = [
            sample for family in text_string_to_metric_families(body.content.decode()) for sample in family.samples
        ]
        assert [sample for sample in samples if math.isnan(sample.value)] == []
        shown = {
            (sample.labels["node"], sample.name): sample.value for sample in samples if sample.name.startswith("node_")
        }
        nodes: Store[Node] = Store()
        pods: Store[Pod] = Store()
        fresh = NodeLoads(nodes, [pods], POLICY.reference)
        await _fill(self.wire, NODES, nodes)
        await _fill(self.wire, PODS, pods)
        wanted = dict(fresh.usage())
        names = [name for name, _ in FAMILIES]
        for node in NODE_NAMES:
            assert dict(zip(names, wanted[node], strict=True)) == {name: shown[node, name] for name in names}, node


async def _fill(wire: Wire, resource: Resource[T], store: Store[Any]) -> None:
    page = await wire.list_page(resource, limit=0)
    store.replace(page.items, page.resource_version)
