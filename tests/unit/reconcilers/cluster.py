"""An in-memory model of the API server's rules, with the caches and the clock in the test's hands.

It keeps what the promises rest on: resource versions and UIDs, guards and their conflicts, names that are taken,
graceful deletion on nodes, and it records every moment at which a VM had more than one live pod. Events reach the
caches only when the test says so, of each resource as many as it says; replies can be lost after the write took effect,
or the write can take effect late. A test that must decide which request goes first sets `turn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar

import msgspec

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import ReferenceNode
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm.launcher import LauncherPolicy
from controller.engine.store import Store
from controller.engine.workers import Result
from controller.kube import codec, errors
from controller.kube.client import Page
from controller.kube.event import Event
from controller.kube.kinds import Node, Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.times import timestamp
from controller.observe.caches import Caches
from controller.reconcilers.migration.reconciler import MigrationReconciler
from controller.reconcilers.migration.slots import Limits
from controller.reconcilers.sources import feed, feed_migrations
from controller.reconcilers.vm.reconciler import VMReconciler

T = TypeVar("T")
POLICY = LauncherPolicy(reference=ReferenceNode.of(cpu="32", memory="256Gi"))
Document = dict[str, Any]
LONGEST_REQUEST = 60.0
"""Seconds after which the API server gives up any request (`--request-timeout`)."""
LATER = 1800.0
"""Whoever wants to look again no sooner than after so many seconds has nothing left to do."""


@dataclass(slots=True)
class Fault:
    """What happens to the next matching write: `commit` says whether it takes effect, `late` how many seconds later."""

    method: str
    plural: str
    error: BaseException
    commit: bool = True
    late: float = 0.0


@dataclass(slots=True)
class Cluster:
    """The API server: objects, a revision, a clock."""

    now: datetime = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
    revision: int = 100
    objects: dict[tuple[str, str], Document] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    """Writes of a controller to a pod that no VM controls."""
    dry_runs: list[Document] = field(default_factory=list)
    """What would have been created."""
    late: list[tuple[datetime, Callable[[], object]]] = field(default_factory=list)
    log: list[tuple[str, Document, bool]] = field(default_factory=list)
    uids: int = 0
    unfit: set[str] = field(default_factory=set)
    """Nodes that the scheduler refuses for reasons of its own."""
    intercept: Callable[[str, str], Fault | None] | None = None
    """Asked at every write; may answer with a fault."""
    turn: Callable[[str], Awaitable[None]] = field(default=lambda _: asyncio.sleep(0))
    """Awaited by every request, told as its method and resource, before the server looks at it."""
    _living: dict[str, set[str]] = field(default_factory=dict)
    """The keys of each VM's live pods, by the VM's UID."""

    # --- what a user, the scheduler and the kubelet do -------------------------------------------------------

    def apply_vm(
        self, name: str = "vm-1", *, running: bool = True, cpu: str = "0.10", memory: str = "0.15"
    ) -> Document:
        """Create or change a VM."""
        key = (VIRTUAL_MACHINES.plural, f"default/{name}")
        spec = {"resources": {"cpu": cpu, "memory": memory}, "running": running}
        if key in self.objects:
            return self._store(VIRTUAL_MACHINES.plural, {**self.objects[key], "spec": spec})
        metadata = {"name": name, "namespace": "default"}
        return self._add(VIRTUAL_MACHINES.plural, {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})

    def add_node(self, name: str = "node-1") -> None:
        """Create a node that fake VMs may land on."""
        metadata = {"name": name, "namespace": "", "labels": {"type": "kwok"}}
        status = {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}
        self._add(NODES.plural, {"metadata": metadata, "spec": {}, "status": status})

    def crowd(self, node: str) -> Document:
        """Let a pod that is nobody's VM take nearly all of a node."""
        stranger = {
            "metadata": {"name": "stranger", "namespace": "other"},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "31", "memory": "1Gi"}}}]},
            "status": {"phase": "Running"},
        }
        return self._add(PODS.plural, stranger)

    def report(self, name: str, ready: str) -> None:
        """Set what a node's condition Ready says: True, False or Unknown."""
        node = self.objects[NODES.plural, f"/{name}"]
        told = [{"type": "Ready", "status": ready, "reason": "" if ready == "True" else "NodeStatusUnknown"}]
        self._store(NODES.plural, {**node, "status": {**node["status"], "conditions": told}})

    def taint(self, name: str, key: str) -> None:
        """Taint a node."""
        node = self.objects[NODES.plural, f"/{name}"]
        taints = [{"key": key, "effect": "NoExecute"}]
        self._store(NODES.plural, {**node, "spec": {**node["spec"], "taints": taints}})

    def cordon(self, name: str, *, unschedulable: bool = True) -> None:
        """Close a node to the scheduler, or open it again."""
        node = self.objects[NODES.plural, f"/{name}"]
        self._store(NODES.plural, {**node, "spec": {**node["spec"], "unschedulable": unschedulable}})

    def migrate(self, name: str = "m-1", *, vm: str = "vm-1", **spec: Any) -> Document:
        """Ask for a migration."""
        metadata = {"name": name, "namespace": "default"}
        body = {"metadata": metadata, "spec": {"vmName": vm, **spec}, "status": {"phase": "Pending"}}
        return self._add(MIGRATIONS.plural, body)

    def migration(self, name: str = "m-1") -> Document:
        """One migration's status."""
        status: Document = self.objects[MIGRATIONS.plural, f"default/{name}"]["status"]
        return status

    def _target(self, pod: Document) -> str | None:
        """Choose the newest node that takes the pod."""
        affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
        fields = terms[0].get("matchFields", [])
        for (plural, _), node in reversed(self.objects.items()):
            name = node["metadata"]["name"]
            takes = all((name in field["values"]) == (field["operator"] == "In") for field in fields)
            open_to_all = not node["spec"].get("unschedulable") and name not in self.unfit
            if plural == NODES.plural and takes and open_to_all:
                return str(name)
        return None

    def bind_pods(self) -> None:
        """Bind every pending pod to a node that takes it, and no more."""
        for pod in self.pods():
            if pod["status"]["phase"] == "Pending" and (node := self._target(pod)) is not None:
                told = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(self.now)}]
                bound = {**pod["status"], "conditions": told}
                self._store(PODS.plural, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": bound})

    def run_pods(self) -> None:
        """Bind every pending pod to a node that takes it and let it run; say of the others that none does."""
        for pod in self.pods():
            if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                stamp = timestamp(self.now)
                node = self._target(pod)
                if node is None:
                    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
                    waiting = {**pod["status"], "conditions": [told]}
                    if waiting != pod["status"]:
                        self._store(PODS.plural, {**pod, "status": waiting})
                    continue
                conditions = [
                    {"type": kind, "status": "True", "lastTransitionTime": stamp} for kind in ("PodScheduled", "Ready")
                ]
                status = {"phase": "Running", "startTime": stamp, "conditions": conditions}
                self._store(PODS.plural, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})

    def evict(self, name: str, reason: str = "EvictionByEvictionAPI") -> None:
        """Evict a pod, as the API server does: first the condition, then the deletion."""
        pod = self.objects[PODS.plural, f"default/{name}"]
        told = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        conditions = [*pod["status"].get("conditions", []), told]
        pod = self._store(PODS.plural, {**pod, "status": {**pod["status"], "conditions": conditions}})
        metadata = {**pod["metadata"], "deletionTimestamp": timestamp(self.now)}
        self._store(PODS.plural, {**pod, "metadata": metadata})

    def finish_deletions(self) -> None:
        """Let the kubelet finish what is terminating; on a node that is gone there is none."""
        for pod in self.pods():
            node = pod["spec"].get("nodeName")
            going = "deletionTimestamp" in pod["metadata"] and not pod["metadata"].get("finalizers")
            if going and (node is None or (NODES.plural, f"/{node}") in self.objects):
                self._remove(PODS.plural, pod)

    def remove(self, resource: Resource[Any], key: str) -> None:
        """Delete an object at once, as a user with force or a garbage collector can."""
        self._remove(resource.plural, self.objects[resource.plural, key])

    def edit(self, resource: Resource[Any], key: str, **metadata: Any) -> None:
        """Change an object's metadata by hand."""
        document = self.objects[resource.plural, key]
        self._store(resource.plural, {**document, "metadata": {**document["metadata"], **metadata}})

    def set_status(self, resource: Resource[Any], key: str, status: Document) -> None:
        """Replace an object's status by hand."""
        self._store(resource.plural, {**self.objects[resource.plural, key], "status": status})

    def pass_time(self, seconds: float) -> None:
        """Move the clock; late writes take effect on the way."""
        self.now += timedelta(seconds=seconds)
        due = [write for at, write in self.late if at <= self.now]
        self.late = [(at, write) for at, write in self.late if at > self.now]
        for write in due:
            # Nobody is there any more who would be told that it was refused.
            with suppress(errors.StatusError):
                write()

    # --- what a test looks at --------------------------------------------------------------------------------

    def pods(self) -> list[Document]:
        """Every pod."""
        return [document for (plural, _), document in self.objects.items() if plural == PODS.plural]

    def live(self, vm_uid: str | None = None) -> list[Document]:
        """Every live pod that a VM controls."""
        return [
            pod
            for pod in self.pods()
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
            and any(vm_uid in (None, owner["uid"]) for owner in pod["metadata"].get("ownerReferences", ()))
        ]

    def vm(self, name: str = "vm-1") -> Document:
        """One VM."""
        return self.objects[VIRTUAL_MACHINES.plural, f"default/{name}"]

    def status(self, name: str = "vm-1") -> Document:
        """One VM's status."""
        status: Document = self.vm(name)["status"]
        return status

    # --- the client's methods --------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state."""
        resource.path(namespace, name)  # refuses what is no name
        await self.turn(f"get {resource.plural}")
        self.requests.append(f"get {resource.plural}")
        return _decode(self._find(resource.plural, f"{namespace or ''}/{name}"), resource.type)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read all of one kind, or of one kind in a namespace, in one page."""
        await self.turn(f"list {resource.plural}")
        assert (label_selector, continue_token) == (None, "")
        assert limit > 0
        self.requests.append(f"list {resource.plural}")
        items = [
            _decode(found, resource.type)
            for (plural, _), found in self.objects.items()
            if plural == resource.plural and namespace in (None, found["metadata"]["namespace"])
        ]
        return Page(items, str(self.revision), "")

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create, unless the name is taken; a dry run, which faults name by its own, leaves nothing behind."""
        method = "dry-run" if dry_run else "create"
        await self.turn(f"{method} {resource.plural}")
        document = {**body, "metadata": {**body["metadata"], "namespace": namespace}, "status": {"phase": "Pending"}}
        write = partial(self._create, resource.plural, document, dry_run=dry_run)
        return _decode(self._write(method, resource.plural, write, deadline=server_deadline), resource.type)

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Patch, if the guards hold; a patch that changes nothing writes nothing."""
        resource.path(namespace, name, subresource)  # refuses what is no name
        await self.turn(f"patch {resource.plural}")
        write = partial(self._patch, resource.plural, f"{namespace or ''}/{name}", body, subresource)
        return _decode(self._write("patch", resource.plural, write), resource.type)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        *,
        namespace: str | None = None,
        uid: str,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> str:
        """Delete, if the guards hold; a bound pod terminates first unless it gets no grace."""
        resource.path(namespace, name)  # refuses what is no name
        await self.turn(f"delete {resource.plural}")
        key = f"{namespace or ''}/{name}"
        write = partial(self._delete, resource.plural, key, uid, resource_version, grace_seconds)
        version: str = self._write("delete", resource.plural, write)["metadata"]["resourceVersion"]
        return version

    # --- inside ----------------------------------------------------------------------------------------------

    def _write(
        self, method: str, plural: str, write: Callable[[], Document], *, deadline: float = LONGEST_REQUEST
    ) -> Document:
        """Carry a write out, unless a fault has it otherwise."""
        fault = self._fault(method, plural)
        if fault is None:
            return write()
        if fault.late:
            assert fault.late <= deadline, "the server gives up at its deadline"
            self.late.append((self.now + timedelta(seconds=fault.late), write))
        elif fault.commit:
            write()
        raise fault.error

    def _create(self, plural: str, document: Document, *, dry_run: bool = False) -> Document:
        if (plural, _key(document)) in self.objects:
            raise errors.AlreadyExistsError(409, "AlreadyExists", f"{_key(document)} already exists")
        if dry_run:
            self.dry_runs.append(document)
            return document
        self.writes.append(f"create {plural}")
        return self._add(plural, document)

    def _patch(self, plural: str, key: str, body: Mapping[str, Any], subresource: str | None) -> Document:
        document = self._find(plural, key)
        guard = body["metadata"]
        self._guard(document, guard.get("uid"), guard.get("resourceVersion"))
        parts = ("status",) if subresource == "status" else ("metadata", "spec")
        change = {part: body[part] for part in parts if part in body}
        if "metadata" in change:
            change["metadata"] = {k: v for k, v in guard.items() if k not in ("uid", "resourceVersion")}
        patched = _merge(document, change)
        if patched != document:
            self._written("patch", plural, document)
            document = self._store(plural, patched)
        return document

    def _delete(
        self, plural: str, key: str, uid: str, resource_version: str | None, grace_seconds: int | None
    ) -> Document:
        document = self._find(plural, key)
        self._guard(document, uid, resource_version)
        self._written("delete", plural, document)
        held = bool(document["metadata"].get("finalizers"))
        bound = bool(_decode(document, Pod).spec.node_name)
        if held or (bound and grace_seconds != 0):
            grace = 30 if grace_seconds is None else grace_seconds
            going = {"deletionTimestamp": timestamp(self.now), "deletionGracePeriodSeconds": grace}
            return self._store(plural, {**document, "metadata": {**document["metadata"], **going}})
        self._remove(plural, document)
        return document

    def _written(self, method: str, plural: str, document: Document) -> None:
        """Note a write of a controller, and whether it had any business there."""
        self.writes.append(f"{method} {plural}")
        if plural == PODS.plural and ownership.owner(_decode(document, Pod)) is None:
            self.touched.append(f"{method} pods {_key(document)}")

    def _fault(self, method: str, plural: str) -> Fault | None:
        self.requests.append(f"{method} {plural}")
        if self.intercept is not None and (fault := self.intercept(method, plural)) is not None:
            return fault
        for fault in self.faults:
            if (fault.method, fault.plural) == (method, plural):
                self.faults.remove(fault)
                return fault
        return None

    def _find(self, plural: str, key: str) -> Document:
        try:
            return self.objects[plural, key]
        except KeyError:
            raise errors.NotFoundError(404, "NotFound", f"{plural} {key} not found") from None

    def _guard(self, document: Document, uid: str | None, version: str | None) -> None:
        metadata = document["metadata"]
        if uid not in (None, metadata["uid"]) or version not in (None, metadata["resourceVersion"]):
            raise errors.ConflictError(409, "Conflict", "the object has been modified")

    def _add(self, plural: str, document: Document) -> Document:
        self.uids += 1
        metadata = {**document["metadata"], "uid": f"uid-{self.uids}", "creationTimestamp": timestamp(self.now)}
        return self._store(plural, {**document, "metadata": metadata})

    def _store(self, plural: str, document: Document) -> Document:
        self.revision += 1
        metadata = {**document["metadata"], "resourceVersion": str(self.revision)}
        before = self.objects.get((plural, _key(document)))
        if plural in (VIRTUAL_MACHINES.plural, MIGRATIONS.plural):
            metadata["generation"] = _generation(before, document)
        document = {**document, "metadata": metadata}
        self.objects[plural, _key(document)] = document
        self.log.append((plural, document, False))
        if plural == PODS.plural:
            self._check(_key(document), before, document)
        return document

    def _remove(self, plural: str, document: Document) -> None:
        self.revision += 1
        before = self.objects.pop((plural, _key(document)))
        if plural == PODS.plural:
            self._check(_key(document), before, None)
        metadata = {**document["metadata"], "resourceVersion": str(self.revision)}
        self.log.append((plural, {**document, "metadata": metadata}, True))

    def _check(self, key: str, before: Document | None, pod: Document | None) -> None:
        """Note a VM of which a second pod lives since this change."""
        for uid in _owners_of(before):
            self._living[uid].discard(key)
        for uid in _owners_of(pod):
            living = self._living.setdefault(uid, set())
            living.add(key)
            if len(living) > 1:
                self.violations.append(f"revision {self.revision}: {len(living)} live pods of VM {uid}")


class Process:
    """One controller process: its caches, its queue, its reconciler. A new one knows nothing of the one before."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        limits: Limits | None = None,
        of_class: str | None = None,
        namespace: str | None = None,
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
                _decode(document, self._types[plural])
                for (kind, _), document in cluster.objects.items()
                if kind == plural and self._selected(plural, document)
            ]
            store.replace(items, str(cluster.revision))
        self.reconciler = VMReconciler(
            cluster,
            {namespace: self.caches},
            self.nodes,
            POLICY,
            record=self._record,
            rng=Random(1),  # noqa: S311 - jitter, no secret
            now=lambda: cluster.now,
            monotonic=lambda: cluster.now.timestamp(),  # noqa: PLW0108 - the clock moves
        )
        self.reconciler.begin()
        self.migrations = MigrationReconciler(
            cluster,
            {namespace: self.caches},
            self.nodes,
            POLICY,
            limits or Limits(),
            record=self._record,
            wake=lambda key, _: self.moving.setdefault(key),
            claim=self.reconciler.claim,
            now=lambda: cluster.now,
            monotonic=lambda: cluster.now.timestamp(),  # noqa: PLW0108 - the clock moves
        )
        self.migrations.begin()
        feed(lambda key, _: self.pending.setdefault(key), {namespace: self.caches}, self.nodes)
        feed_migrations(lambda key, _: self.moving.setdefault(key), {namespace: self.caches})

    def _record(self, _: ObjectMeta, event: Event) -> None:
        self.events.append(event)

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
        """Let the watches catch up; those of one resource may be late."""
        for plural in self._stores:
            if plural != withhold:
                self.deliver_some(plural, len(self.cluster.log))

    def deliver_some(self, plural: str, count: int) -> None:
        """Let the watch of one resource show its next `count` events."""
        for at in range(self._read[plural], len(self.cluster.log)):
            kind, document, deleted = self.cluster.log[at]
            if kind != plural:
                continue
            if not count:
                return
            count -= 1
            self._read[plural] = at + 1
            item = _decode(document, self._types[plural])
            # An object that leaves the selection reaches its watcher as deleted.
            self._stores[plural].apply(item, deleted=deleted or not self._selected(plural, document))
        self._read[plural] = len(self.cluster.log)

    def queued(self) -> list[tuple[str, str]]:
        """Return what waits for a worker, the queue's name and the key, in an order that is the same in every run."""
        return sorted((name, key) for name, queue in self._queues.items() for key in queue)

    async def work(self, name: str, key: str) -> None:
        """Do what a worker does with a key of the queue `vms` or `migrations`."""
        queue = self._queues[name]
        queue.pop(key, None)
        reconcile = self.reconciler.reconcile if name == "vms" else self.migrations.reconcile
        try:
            result = await reconcile(key)
        except errors.KubeError:
            result = Result(retry=True)
        if result.retry or result.requeue_after is not None:
            queue[key] = None

    async def reconcile(self, key: str = "default/vm-1") -> Result | errors.KubeError:
        """Reconcile once, whatever the queue says; return the error where a worker would back off."""
        try:
            return await self.reconciler.reconcile(key)
        except errors.KubeError as error:
            return error

    async def step(self) -> bool:
        """Let the controller work off what is queued now; return whether it wants to look again later."""
        again = False
        for queue, reconcile in ((self.pending, self.reconciler.reconcile), (self.moving, self.migrations.reconcile)):
            keys = list(queue)
            queue.clear()
            # All at once, as many workers do: every request lets the others go on.
            for key, result in zip(
                keys, await asyncio.gather(*map(reconcile, keys), return_exceptions=True), strict=True
            ):
                if isinstance(result, BaseException) and not isinstance(result, errors.KubeError):
                    raise result
                if isinstance(result, errors.KubeError) or result.retry or result.requeue_after is not None:
                    queue[key] = None
                    again = again or isinstance(result, errors.KubeError) or (result.requeue_after or 0) <= LATER
        return again

    async def settle(self, rounds: int = 60, *, patience: float = 1.0) -> None:
        """Play controller, scheduler and kubelet until nobody has anything left to do, `patience` seconds a round."""
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
    """Let so many VMs run on node-0, add the other nodes, and ask for a migration of each VM, all at once."""
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


def _decode(document: Document, kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return codec.decode_object(codec.encode(document), kind)  # as the client reads an odd one


def _generation(before: Document | None, after: Document) -> int:
    """Count a new spec, and the beginning of a deletion, as the API server counts them."""
    if before is None:
        return 1
    metadata = before["metadata"]
    dying = "deletionTimestamp" in after["metadata"] and "deletionTimestamp" not in metadata
    return int(metadata["generation"]) + bool(before.get("spec") != after.get("spec")) + dying


def _owners_of(pod: Document | None) -> list[str]:
    """Return the UIDs of those whose live pod this is."""
    if pod is None or pod["status"]["phase"] in ("Succeeded", "Failed"):
        return []
    return [owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())]


def _key(document: Document) -> str:
    return f"{document['metadata']['namespace']}/{document['metadata']['name']}"


def _merge(document: Document, patch: Mapping[str, Any]) -> Document:
    """RFC 7386."""
    merged = dict(document)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(name), dict):
            merged[name] = _merge(merged[name], value)
        elif isinstance(value, Mapping):
            merged[name] = _merge({}, value)
        else:
            merged[name] = value
    return merged


async def running(cluster: Cluster) -> Process:
    """Return a process whose VM runs, some time after both began."""
    process = Process(cluster)
    await process.settle()
    assert cluster.status()["phase"] == "Running"
    cluster.pass_time(3600)
    return process
