"""The requests that reconcilers make; `controller.kube.client.Client` has them all.

Guarantees: through `Fenced` no write is sent by a process that does not lead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from controller.kube import errors
from controller.kube.client import Page
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, Resource

T = TypeVar("T")

CREATE_DEADLINE: Final = 10.0
"""Seconds after which the API server gives up a create (`?timeout=`)."""


class Api(Protocol):
    """The API server, as far as a reconcile needs it."""

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state."""
        ...

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page of the newest state."""
        ...

    async def create(
        self, resource: Resource[T], body: Mapping[str, Any], *, namespace: str | None = None, server_deadline: float
    ) -> T:
        """Create an object."""
        ...

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Apply a guarded patch."""
        ...

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
        """Delete exactly one object."""
        ...


class DryRunApi(Api, Protocol):
    """An `Api` that can be asked whether an object could be created."""

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create an object, or only ask whether it could be."""
        ...


async def patch_status(api: Api, resource: Resource[T], metadata: ObjectMeta, status: Mapping[str, Any]) -> T | None:
    """Merge `status` into an object that is still as the cache shows it; return it, or None if it is gone.

    Raises ConflictError if it changed meanwhile.
    """
    guard = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
    try:
        return await api.merge_patch(
            resource,
            metadata.name,
            {"metadata": guard, "status": status},
            namespace=metadata.namespace,
            subresource="status",
        )
    except errors.NotFoundError:
        return None


async def node_gone(api: Api, name: str) -> bool:
    """Look past the cache of nodes, which may be late."""
    try:
        await api.get(NODES, name)
    except errors.NotFoundError:
        return True
    return False


class Fenced:
    """Another's requests; writes only while `leads` says so. Raises NotLeadingError instead of sending one."""

    def __init__(self, api: DryRunApi, leads: Callable[[], bool]) -> None:
        self._api = api
        self._leads = leads
        self.get = api.get
        self.list_page = api.list_page

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create an object, or only ask whether it could be."""
        self._check()
        return await self._api.create(
            resource, body, namespace=namespace, server_deadline=server_deadline, dry_run=dry_run
        )

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Apply a guarded patch."""
        self._check()
        return await self._api.merge_patch(resource, name, body, namespace=namespace, subresource=subresource)

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
        """Delete exactly one object."""
        self._check()
        return await self._api.delete(
            resource,
            name,
            namespace=namespace,
            uid=uid,
            resource_version=resource_version,
            grace_seconds=grace_seconds,
        )

    def _check(self) -> None:
        if not self._leads():
            raise errors.NotLeadingError("this process does not lead now, so it writes nothing")
