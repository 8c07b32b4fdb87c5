"""An API server in memory for the tests of this folder: names, UIDs, labels, guards, lists and watches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.verbs import Page

T = TypeVar("T")
DELETED = "2026-01-15T10:30:00Z"
Document = dict[str, Any]

RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "reason": "GuestRunning"}]}


def _waiting(why: str) -> Document:
    ready = {"type": "Ready", "status": "False", "reason": "Unschedulable", "message": why}
    return {"phase": "Scheduling", "conditions": [ready]}


class Api:
    """Objects by plural, namespace and name. `writes` are the requests that changed something, or tried to."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.writes: list[str] = []
        self.asked: list[str] = []
        self.versions = itertools.count(1)
        self.version = 0
        self.watchers: list[tuple[str, asyncio.Queue[bytes]]] = []
        self.faults: dict[str, list[Exception]] = {}
        """What the next requests like `POST web-1` fail with; a fault whose outcome is unknown took effect."""
        self.before: Callable[[str], object] = lambda _: None
        """Called with every write before it takes effect."""
        self.after: Callable[[str], object] = lambda _: None
        self.unfit: dict[str, str] = {}
        """VMs that no node takes, and why the scheduler says so."""
        self.latency = 0.0
        self.busy = self.busiest = 0
        self.put("namespaces", "", "default")

    # --- what a test does ------------------------------------------------------------------------------------

    def put(self, plural: str, namespace: str, name: str, **parts: Any) -> Document:
        """Create an object, or change parts of it."""
        key = (plural, namespace, name)
        known = self.objects.get(key, {"metadata": {"name": name, "namespace": namespace, "uid": self._uid(name)}})
        metadata = {**known["metadata"], **parts.pop("metadata", {}), "resourceVersion": self._next()}
        self.objects[key] = {**known, **parts, "metadata": metadata}
        self._tell("MODIFIED", plural, self.objects[key])
        return self.objects[key]

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Let an object go."""
        gone = self.objects.pop((plural, namespace, name))
        gone["metadata"]["resourceVersion"] = self._next()
        self._tell("DELETED", plural, gone)

    def run_all(self, _: str = "") -> None:
        """Do what the controller and KWOK do."""
        for plural, namespace, name in list(self.objects):
            document = self.objects[plural, namespace, name]
            if plural == VIRTUAL_MACHINES.plural and document.get("status", {}).get("phase") != "Running":
                self.put(plural, namespace, name, status=_waiting(self.unfit[name]) if name in self.unfit else RUNNING)
            taints = document.get("spec", {}).get("taints", [])
            if plural == NODES.plural and any(taint["key"].endswith("/not-ready") for taint in taints):
                ready = [taint for taint in taints if not taint["key"].endswith("/not-ready")]
                self.put(plural, namespace, name, spec={"taints": ready})

    def names(self, plural: str) -> list[str]:
        """What there is of a kind."""
        return sorted(name for kind, _, name in self.objects if kind == plural)

    # --- what a client may ask -------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read an object."""
        await self._arrive(f"GET {name}")
        return self._decoded(resource, self._find(resource, name, namespace))

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """List all at once."""
        del limit, continue_token
        await self._arrive(f"LIST {resource.plural}")
        found = [
            self._decoded(resource, document)
            for (plural, inside, _), document in self.objects.items()
            if plural == resource.plural and namespace in (None, inside) and _selected(document, label_selector)
        ]
        return Page(found, str(self.version), "")

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Stream what changes from now on; nothing is awaited between a list and its watch here."""
        del resource_version, life, namespace
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        entry = (resource.plural, queue)
        self.watchers.append(entry)
        try:
            yield []
            while True:
                event = codec.decode(await queue.get(), codec.WatchEnvelope)
                if _selected(msgspec.json.decode(event.object), label_selector):
                    yield [event]
        finally:
            self.watchers.remove(entry)

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create an object, or write down in `asked` that somebody asked whether it could be."""
        del server_deadline
        name = str(body["metadata"]["name"])
        if dry_run:
            self.asked.append(name)
            await self._arrive(f"ASK {name}")
            return self._decoded(resource, dict(body))
        async with _Busy(self):
            await self._arrive(f"POST {name}")
            if (resource.plural, namespace or "", name) in self.objects:
                raise errors.AlreadyExistsError(409, "AlreadyExists", f"{name} already exists")
            document = dict(body)
            if resource is NODES:
                taints = [*body["spec"]["taints"], {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
                document["spec"] = {"taints": taints}
            made = self.put(resource.plural, namespace or "", name, **document)
            self._leave(f"POST {name}")
            return self._decoded(resource, made)

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Change annotations, if the UID is right."""
        assert subresource is None
        async with _Busy(self):
            await self._arrive(f"PATCH {name}")
            document = self._find(resource, name, namespace)
            if body["metadata"]["uid"] != document["metadata"]["uid"]:
                raise errors.ConflictError(409, "Conflict", f"{name} is another object")
            annotations = document["metadata"].get("annotations", {}) | body["metadata"]["annotations"]
            changed = self.put(resource.plural, namespace or "", name, metadata={"annotations": annotations})
            self._leave(f"PATCH {name}")
            return self._decoded(resource, changed)

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
        """Delete the object with this UID; one with finalizers is marked, and stays."""
        assert (resource_version, grace_seconds) == (None, None)
        async with _Busy(self):
            await self._arrive(f"DELETE {name}")
            metadata = self._find(resource, name, namespace)["metadata"]
            if metadata["uid"] != uid:
                raise errors.ConflictError(409, "Conflict", f"{name} is another object")
            if metadata.get("finalizers"):
                self.put(resource.plural, namespace or "", name, metadata={**metadata, "deletionTimestamp": DELETED})
            else:
                self.remove(resource.plural, namespace or "", name)
            self._leave(f"DELETE {name}")
            return str(self.version)

    # --- inside ----------------------------------------------------------------------------------------------

    async def _arrive(self, request: str) -> None:
        if not request.startswith(("GET", "LIST", "ASK")):
            self.writes.append(request)
        self.before(request)
        await asyncio.sleep(self.latency)
        waiting = self.faults.get(request, [])
        if waiting and not (isinstance(waiting[0], errors.KubeError) and waiting[0].outcome_unknown):
            raise waiting.pop(0)

    def _leave(self, request: str) -> None:
        self.after(request)
        waiting = self.faults.get(request, [])
        if waiting:
            raise waiting.pop(0)

    def _find(self, resource: Resource[T], name: str, namespace: str | None) -> Document:
        try:
            return self.objects[resource.plural, namespace or "", name]
        except KeyError:
            raise errors.NotFoundError(404, "NotFound", f"{resource.plural} {name!r} not found") from None

    @staticmethod
    def _decoded(resource: Resource[T], document: Document) -> T:
        return msgspec.convert(document, resource.type)

    def _next(self) -> str:
        self.version = next(self.versions)
        return str(self.version)

    def _uid(self, name: str) -> str:
        return f"uid-{name}-{self.version + 1}"

    def _tell(self, kind: str, plural: str, document: Document) -> None:
        for watched, queue in self.watchers:
            if watched == plural:
                queue.put_nowait(msgspec.json.encode({"type": kind, "object": document}))


class _Busy:
    """Counts the writes under way."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __aenter__(self) -> None:
        self._api.busy += 1
        self._api.busiest = max(self._api.busiest, self._api.busy)

    async def __aexit__(self, *_: object) -> None:
        self._api.busy -= 1


def _selected(document: Document, selector: str | None) -> bool:
    if selector is None:
        return True
    key, equals, value = selector.partition("=")
    labels = document["metadata"].get("labels", {})
    return labels.get(key) == value if equals else key in labels


def pod_of(api: Api, vm: VirtualMachine | Document) -> Document:
    """Create the pod of a VM."""
    metadata = msgspec.to_builtins(vm)["metadata"]
    owner = {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {"simulation.node-classifier.io/vm": metadata["name"]}
    return api.put(
        PODS.plural,
        metadata["namespace"],
        f"virt-launcher-{metadata['name']}",
        metadata={"labels": labels, "ownerReferences": [owner]},
    )
