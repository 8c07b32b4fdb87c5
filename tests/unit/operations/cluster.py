"""An API server in memory: objects, guards, and watches that tell of every change at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.resources import PODS, Resource
from controller.kube.verbs import Page

T = TypeVar("T")
Document = dict[str, Any]


def now() -> float:
    """Return the loop's time, which begins at 0."""
    return asyncio.get_running_loop().time()


def later(seconds: float, what: Callable[..., Any], *arguments: Any, **names: Any) -> None:
    """Let something happen while the test waits."""
    asyncio.get_running_loop().call_later(seconds, lambda: what(*arguments, **names))


@dataclass(slots=True)
class _Watch:
    plural: str
    namespace: str | None
    label_selector: str | None
    events: asyncio.Queue[codec.WatchEnvelope] = field(default_factory=asyncio.Queue)


@dataclass(slots=True)
class Cluster:
    """What the cluster has. Tests play everybody else: the controller, the scheduler, other users."""

    objects: dict[tuple[str, str], Document] = field(default_factory=dict)
    revision: int = 100
    failures: dict[str, BaseException] = field(default_factory=dict)
    """By `method plural` or `method plural/name`: raised instead of an answer."""
    page_size: int = 1000
    expire: bool = False
    """Whether the next page of a list is too old to be read."""
    _watches: list[_Watch] = field(default_factory=list)

    # --- what a test does and looks at -----------------------------------------------------------------------

    def vm(self, name: str = "vm-1", *, running: bool = True, **status: Any) -> None:
        """Put a VM there, or change its status; `conditions` are (type, status, reason, message)."""
        if "conditions" in status:
            status["conditions"] = [
                dict(zip(("type", "status", "reason", "message"), told, strict=False)) for told in status["conditions"]
            ]
        spec = {"resources": {"cpu": "0.1", "memory": "0.1"}, "running": running}
        self.put(VIRTUAL_MACHINES.plural, name, spec=spec, status={"phase": "Pending", **status})

    def pod(self, name: str, vm: str = "vm-1", *, owned: bool = True, node: str | None = None, **parts: Any) -> None:
        """Put a launcher pod there, or change it; `waits` is the scheduler's reason to give it no node."""
        metadata: Document = {"labels": {names.VM_LABEL: vm}, "annotations": {names.INCARNATION: "0"}}
        metadata["finalizers"] = parts.get("finalizers", [])
        if owned:
            owner = self.objects[VIRTUAL_MACHINES.plural, f"default/{vm}"]["metadata"]["uid"]
            metadata["ownerReferences"] = [
                {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": vm, "uid": owner, "controller": True}
            ]
        told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": parts.get("waits")}
        status = {"phase": parts.get("phase", "Pending"), "conditions": [told] if "waits" in parts else []}
        self.put(PODS.plural, name, metadata=metadata, spec={"nodeName": node} if node else {}, status=status)

    def migration(self, name: str, **status: Any) -> None:
        """Change a migration's status."""
        document = self.objects[MIGRATIONS.plural, f"default/{name}"]
        self.put(MIGRATIONS.plural, name, spec=document["spec"], status=status)

    def put(self, plural: str, name: str, *, metadata: Mapping[str, Any] | None = None, **parts: Any) -> Document:
        """Create or replace an object."""
        known = self.objects.get((plural, f"default/{name}"))
        self.revision += 1
        document = {
            **parts,
            "metadata": {
                **(metadata or {}),
                "name": name,
                "namespace": "default",
                "uid": known["metadata"]["uid"] if known else f"uid-{self.revision}",
                "resourceVersion": str(self.revision),
            },
        }
        self.objects[plural, f"default/{name}"] = document
        self._tell("MODIFIED" if known else "ADDED", plural, document)
        return document

    def remove(self, plural: str, name: str) -> None:
        """Take an object away."""
        document = self.objects.pop((plural, f"default/{name}"))
        self.revision += 1
        metadata = {**document["metadata"], "resourceVersion": str(self.revision)}
        self._tell("DELETED", plural, {**document, "metadata": metadata})

    def names(self, resource: Resource[Any]) -> list[str]:
        """Return the names of all objects of a resource."""
        return [found["metadata"]["name"] for (plural, _), found in self.objects.items() if plural == resource.plural]

    # --- the client's methods --------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read one object."""
        await asyncio.sleep(0)
        self._fail("get", resource.plural, name)
        return msgspec.convert(self._find(resource.plural, namespace, name), resource.type)

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page; a limit of 0 is all."""
        await asyncio.sleep(0)
        self._fail("list", resource.plural, "")
        if continue_token and self.expire:
            self.expire = False
            raise errors.ExpiredError(410, "Expired", "too old")
        probe = _Watch(resource.plural, namespace, label_selector)
        found = [item for (plural, _), item in self.objects.items() if _sees(probe, plural, item)]
        start, size = int(continue_token or 0), min(limit, self.page_size) or len(found) + 1
        items = [msgspec.convert(item, resource.type) for item in found[start : start + size]]
        more = str(start + size) if start + size < len(found) else ""
        return Page(items, str(self.revision), more)

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Tell of every change from now on."""
        assert resource_version == str(self.revision), "a change between list and watch would be lost"
        assert life > 0
        mine = _Watch(resource.plural, namespace, label_selector)
        self._watches.append(mine)
        try:
            yield []
            while True:
                yield [await mine.events.get()]
        finally:
            self._watches.remove(mine)

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create, unless the name is taken; a generateName gets five characters."""
        await asyncio.sleep(0)
        assert server_deadline > 0
        assert not dry_run
        metadata = dict(body["metadata"])
        name = metadata.get("name") or f"{metadata.pop('generateName')}abcde"
        self._fail("create", resource.plural, name)
        if (resource.plural, f"{namespace}/{name}") in self.objects:
            raise errors.AlreadyExistsError(409, "AlreadyExists", f"{name} already exists")
        parts = {"spec": body["spec"], "status": {"phase": "Pending"}}
        return msgspec.convert(self.put(resource.plural, name, metadata=metadata, **parts), resource.type)

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Refuse: no operation patches anything."""
        raise AssertionError((resource, name, body, namespace, subresource))

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
        """Delete, if the guard holds; a pod with a node terminates, until the test removes it."""
        await asyncio.sleep(0)
        assert (resource_version, grace_seconds) == (None, None)
        self._fail("delete", resource.plural, name)
        document = self._find(resource.plural, namespace, name)
        if document["metadata"]["uid"] != uid:
            raise errors.ConflictError(409, "Conflict", "another object has the name")
        if document.get("spec", {}).get("nodeName"):
            going = {**document["metadata"], "deletionTimestamp": "2026-01-15T10:30:00Z"}
            self.put(resource.plural, name, metadata=going, spec=document["spec"], status=document["status"])
        else:
            self.remove(resource.plural, name)
        return str(self.revision)

    # --- inside ----------------------------------------------------------------------------------------------

    def _fail(self, method: str, plural: str, name: str) -> None:
        for place in (f"{method} {plural}", f"{method} {plural}/{name}"):
            if place in self.failures:
                raise self.failures[place]

    def _find(self, plural: str, namespace: str | None, name: str) -> Document:
        try:
            return self.objects[plural, f"{namespace}/{name}"]
        except KeyError:
            raise errors.NotFoundError(404, "NotFound", f'{plural} "{name}" not found') from None

    def _tell(self, kind: str, plural: str, document: Document) -> None:
        event = codec.WatchEnvelope(type=kind, object=msgspec.Raw(codec.encode(document)))
        for watch in self._watches:
            if _sees(watch, plural, document):
                watch.events.put_nowait(event)


def _sees(watch: _Watch, plural: str, document: Document) -> bool:
    key, _, value = (watch.label_selector or "").partition("=")
    labels = document["metadata"].get("labels", {})
    return (
        plural == watch.plural
        and watch.namespace in (None, document["metadata"]["namespace"])
        and (not key or (key in labels and value in ("", labels[key])))
    )
