"""The requests that reconcilers make; `controller.kube.client.Client` has them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from controller.kube.client import Page
from controller.kube.resources import Resource

T = TypeVar("T")


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
