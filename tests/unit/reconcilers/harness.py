"""The product's controllers on the model of the API server; the test controls their caches, keys and clock.

Guarantees: events reach the caches, and a worker takes a key, only when the test calls for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from controller.domain import names
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.migration.limits import Limits
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import ReferenceNode
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm.policy import LauncherPolicy
from controller.engine.changes import Change
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube import errors
from controller.kube.event import Event
from controller.kube.kinds import Node, Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, PODS
from controller.manager import controllers
from controller.observe.caches import Caches
from controller.reconcilers.api import Api
from controller.reconcilers.migration.copying import CallLater
from tests.model.cluster import Cluster
from tests.model.rules import Document
from tests.model.store import decode

POLICY = LauncherPolicy(reference=ReferenceNode.of(cpu="32", memory="256Gi"))
VMS_FIRST = ("vms",), ("migrations",)
FAST = CopyingPolicy(bandwidth_per_node=1e10)
"""Settings with which the memory of a VM is copied in a few seconds."""
LATER = 1800.0
"""A reconcile that is requeued after more than so many seconds counts as settled."""


class _Never:
    """A timer that the test does not wait for: a key that is requeued comes back at once."""

    def cancel(self) -> None:
        """Do nothing."""


class Process:
    """One controller process: its caches, its queues, its reconcilers. It starts with no state.

    It sends its requests to the cluster, or through `client`. Without `call_later`, no timer of copying fires.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        limits: Limits | None = None,
        of_class: str | None = None,
        namespace: str | None = None,
        client: Api | None = None,
        live: CopyingPolicy = FAST,
        policy: LauncherPolicy = POLICY,
        call_later: CallLater = lambda *_: _Never(),
    ) -> None:
        self.cluster = cluster
        self.of_class = of_class
        self.namespace = namespace
        self.caches = Caches()
        self.nodes: Store[Node] = Store()
        self.pending: dict[str, None] = {}
        self.moving: dict[str, None] = {}
        self.events: list[Event] = []
        self._queues = {"vms": self.pending, "migrations": self.moving}
        self._stores: dict[str, Store[Any]] = {
            VIRTUAL_MACHINES.plural: self.caches.vms,
            PODS.plural: self.caches.pods,
            NODES.plural: self.nodes,
            MIGRATIONS.plural: self.caches.migrations,
        }
        self._types: dict[str, type[Any]] = {
            VIRTUAL_MACHINES.plural: VirtualMachine,
            PODS.plural: Pod,
            NODES.plural: Node,
            MIGRATIONS.plural: VirtualMachineMigration,
        }
        self._read = dict.fromkeys(self._stores, len(cluster.log))
        for plural, store in self._stores.items():
            items = [
                self._decode(plural, document)
                for (kind, _), document in cluster.objects.items()
                if kind == plural and self._selected(plural, document)
            ]
            store.replace(items, str(cluster.revision))
        vms, migrations = controllers(
            client or cluster,
            {namespace: self.caches},
            self.nodes,
            policy,
            limits or Limits(),
            live=live,
            call_later=call_later,
            record=lambda _: self._record,
            rng=Random(1),  # noqa: S311 - jitter, no secret
            now=lambda: cluster.now,
            monotonic=lambda: cluster.now.timestamp(),  # noqa: PLW0108 - the clock moves
        )
        self.reconciler, self.migrations = vms.reconciler, migrations.reconciler
        vms.start(lambda key, _: self.pending.setdefault(key))
        migrations.start(lambda key, _: self.moving.setdefault(key))

    def _record(self, _: ObjectMeta, event: Event) -> None:
        self.events.append(event)

    def _decode(self, plural: str, document: Document) -> Any:
        """Return an object as this process reads it."""
        return decode(document, self._types[plural])

    def _selected(self, plural: str, document: Document) -> bool:
        """Whether a watch with our label selectors, of our namespace if we have but one, shows an object."""
        if plural != NODES.plural and self.namespace not in (None, document["metadata"]["namespace"]):
            return False
        labels = document["metadata"].get("labels", {})
        of_our_class = bool(labels.get(names.CONTROLLER_CLASS) == self.of_class)
        match plural:
            case PODS.plural:
                return names.VM_LABEL in labels and of_our_class
            case VIRTUAL_MACHINES.plural:
                return of_our_class
            case _:
                return True

    def deliver(self, *, withhold: str | None = None) -> None:
        """Let the watches catch up, but that of one resource."""
        for plural in self._stores:
            if plural != withhold:
                self.deliver_some(plural, len(self.cluster.log))

    def deliver_some(self, plural: str, count: int) -> None:
        """Let the watch of one resource deliver its next `count` events."""
        for at in range(self._read[plural], len(self.cluster.log)):
            kind, document, deleted = self.cluster.log[at]
            if kind != plural:
                continue
            if not count:
                return
            count -= 1
            self._read[plural] = at + 1
            item = self._decode(plural, document)
            # An object that leaves the selection reaches its watcher as deleted.
            self._stores[plural].apply(Change.of(item, deleted=deleted or not self._selected(plural, document)))
        self._read[plural] = len(self.cluster.log)

    def queued(self) -> list[tuple[str, str]]:
        """Return the queued keys, each with its queue's name, sorted."""
        return sorted((name, key) for name, queue in self._queues.items() for key in queue)

    async def work(self, name: str, key: str) -> None:
        """Act as a worker on a key of the queue `vms` or `migrations`."""
        queue = self._queues[name]
        queue.pop(key, None)
        try:
            result = await self._reconcile(name, key)
        except errors.KubeError:
            result = Result(retry=True)
        if result.retry or result.requeue_after is not None:
            queue[key] = None

    async def reconcile(self, key: str = "default/vm-1") -> Result | errors.KubeError:
        """Reconcile a key once, queued or not; return an error instead of raising it."""
        try:
            return await self.reconciler.reconcile(key)
        except errors.KubeError as error:
            return error

    async def step(self, order: Sequence[Sequence[str]] = VMS_FIRST) -> bool:
        """Reconcile all keys that are queued now; return whether one is requeued soon.

        Queue by queue, in their order; those of one group together.
        """
        again = False
        for group in order:
            keys = [(name, key) for name in group for key in self._queues[name]]
            for name in group:
                self._queues[name].clear()
            # Concurrently, as by many workers: at every request the others continue.
            results = await asyncio.gather(*(self._reconcile(*each) for each in keys), return_exceptions=True)
            for (name, key), result in zip(keys, results, strict=True):
                if isinstance(result, BaseException) and not isinstance(result, errors.KubeError):
                    raise result
                if isinstance(result, errors.KubeError) or result.retry or result.requeue_after is not None:
                    self._queues[name][key] = None
                    again = again or isinstance(result, errors.KubeError) or (result.requeue_after or 0) <= LATER
        return again

    async def _reconcile(self, name: str, key: str) -> Result:
        return await (self.reconciler if name == "vms" else self.migrations).reconcile(key)

    async def settle(self, rounds: int = 60, *, patience: float = 1.0) -> None:
        """Run controller, scheduler and kubelet until nothing changes any more, `patience` seconds a round."""
        for _ in range(rounds):
            self.deliver()
            before = (self.cluster.revision, len(self.cluster.late))
            again = await self.step()
            self.cluster.run_pods()
            self.cluster.finish_deletions()
            if (self.cluster.revision, len(self.cluster.late)) == before:
                if not again:
                    return
                self.cluster.pass_time(patience)
        raise AssertionError(f"not settled: {self.cluster.objects}")


async def wave(limits: Limits, nodes: int, vms: int, **spec: Any) -> tuple[Cluster, Process]:
    """Let so many VMs run on node-0, add the other nodes, and create a migration of each VM, all at once."""
    cluster = Cluster()
    cluster.add_node("node-0")
    for number in range(vms):
        cluster.apply_vm(f"vm-{number}", cpu="0.01", memory="0.01")
    process = Process(cluster, limits=limits)
    await process.settle()
    cluster.pass_time(3600)
    for number in range(1, nodes):
        cluster.add_node(f"node-{number}")
    for number in range(vms):
        cluster.migrate(f"m-{number}", vm=f"vm-{number}", **spec)
    return cluster, process


async def running(cluster: Cluster, *, limits: Limits | None = None) -> Process:
    """Return a process whose VM has run for an hour, and add a free node-2."""
    process = await running_alone(cluster, limits=limits)
    cluster.add_node("node-2")
    return process


async def running_alone(cluster: Cluster, *, limits: Limits | None = None) -> Process:
    """Return a process whose VM has run for an hour."""
    process = Process(cluster, limits=limits)
    await process.settle()
    assert cluster.status()["phase"] == "Running"
    cluster.pass_time(3600)
    return process
