"""The namespace of a case of `tests.model.cases` and its client, with builders of the objects that cases create."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.client import Client
from controller.kube.kinds import Node, Pod
from controller.kube.meta import ObjectMeta, ObjectOnly
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.verbs import Page
from tests.model.rules import Document
from tests.model.server import ApiServer

T = TypeVar("T")
Change: TypeAlias = tuple[str, str, int]
"""A line of a watch: its type, the object's name, the version."""
HOLD: Final = "example.com/hold"
ANOTHER: Final = "00000000-0000-4000-8000-000000000000"
"""A UID that no object has."""
FAILED: Final = {"status": {"phase": "Failed"}}
NO_KUBELET: Final = "node-without-kubelet"
"""The node of pods that no kubelet runs: no node has the name."""
WATCH_TIMEOUT: Final = 300.0
DEADLINE: Final = 10.0
"""Seconds within which a watch yields a change."""


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace of a case, and the client that reaches it."""

    api: Client | ApiServer
    namespace: str

    # --- creates: the bodies satisfy a real server, too -------------------------------------------------------

    async def create(self, resource: Resource[T], body: Document, **options: bool) -> T:
        """Create an object in the namespace, as a dry run or strictly."""
        return await self.api.create(resource, body, namespace=self.namespace, server_deadline=10.0, **options)

    async def vm(self, name: str = "a", **metadata: Any) -> VirtualMachine:
        """Create a VM."""
        return await self.create(VIRTUAL_MACHINES, vm(name, **metadata))

    async def pod(self, name: str = "a", *, node: str | None = None, **metadata: Any) -> Pod:
        """Create a pod that no scheduler binds and no kubelet runs; on a node if one is named, which does not exist."""
        return await self.create(PODS, pod(name, node=node, **metadata))

    async def node(self) -> Node:
        """Create a node without a kubelet."""
        name = f"node-{self.namespace}"
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        return await self.api.create(NODES, body, server_deadline=10.0)

    # --- reads ------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str = "a") -> T:
        """Read an object of the namespace."""
        return await self.api.get(resource, name, namespace=self.namespace)

    async def exists(self, resource: Resource[Any], name: str = "a") -> bool:
        """Whether an object of the namespace exists."""
        try:
            await self.get(resource, name)
        except errors.NotFoundError:
            return False
        return True

    async def page(
        self, resource: Resource[T], selector: str | None = None, *, limit: int = 0, token: str = ""
    ) -> Page[T]:
        """Read a page of the namespace's objects."""
        return await self.api.list_page(
            resource, namespace=self.namespace, label_selector=selector, limit=limit, continue_token=token
        )

    async def selected(self, selector: str | None) -> list[str]:
        """Return the names of the VMs that have these labels."""
        return [item.metadata.name for item in (await self.page(VIRTUAL_MACHINES, selector)).items]

    # --- writes -----------------------------------------------------------------------------------------------

    async def patch(
        self, resource: Resource[T], body: Document, name: str = "a", *, subresource: str | None = None
    ) -> T:
        """Patch an object of the namespace."""
        return await self.api.merge_patch(resource, name, body, namespace=self.namespace, subresource=subresource)

    async def release(self, resource: Resource[Any], name: str = "a") -> None:
        """Remove every finalizer of an object."""
        await self.patch(resource, {"metadata": {"finalizers": None}}, name)

    async def delete(self, resource: Resource[Any], metadata: ObjectMeta, **options: Any) -> str:
        """Delete the object with this UID."""
        return await self.api.delete(
            resource, metadata.name, namespace=self.namespace, **{"uid": metadata.uid, **options}
        )

    def watch(
        self, resource: Resource[Any], since: str, selector: str | None = None, *, life: float = WATCH_TIMEOUT
    ) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Watch the namespace's objects."""
        return self.api.watch(
            resource, resource_version=since, life=life, namespace=self.namespace, label_selector=selector
        )

    async def changes(
        self, resource: Resource[Any], since: str, wanted: tuple[str, ...], selector: str | None = None
    ) -> list[Change]:
        """Return the first changes of these types that a watch yields, as many as there are types."""
        found: list[Change] = []
        async with asyncio.timeout(DEADLINE), aclosing(self.watch(resource, since, selector)) as events:
            async for batch in events:
                found += [change_of(event) for event in batch if event.type in wanted]
                if len(found) >= len(wanted):
                    break
        return found


def change_of(event: codec.WatchEnvelope) -> Change:
    """Return the change of a line of a watch."""
    metadata = codec.decode(event.object, ObjectOnly).metadata
    return event.type, metadata.name, int(metadata.resource_version)


def vm(name: str = "a", **metadata: Any) -> Document:
    """Return the body of a VM to create."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VM_KIND,
        "metadata": {**({"name": name} if name else {}), **metadata},
        "spec": {"resources": {"cpu": "0.1", "memory": "0.1"}, "running": False},
    }


def pod(name: str = "a", *, node: str | None = None, **metadata: Any) -> Document:
    """Return the body of a pod to create."""
    where: Document = {"nodeName": node} if node else {"schedulingGates": [{"name": HOLD}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {**where, "containers": [{"name": "c", "image": "example.com/none"}]},
    }


def version(item: Any) -> int:
    """Return the version of an object or a page. Versions are opaque to clients; the cases rely on their order."""
    return int(item.resource_version if isinstance(item, Page) else item.metadata.resource_version)


Case: TypeAlias = Callable[[Place], Awaitable[None]]
