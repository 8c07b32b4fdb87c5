"""The verbs of the API server: one protocol per verb, with client-go's and controller-runtime's names.

Guarantees: a verb's signature is written here and in its implementations, nowhere else. A module that makes requests
declares the sum of its verbs (`class Leases(Getter, Creator, Patcher, Protocol)`) and takes any implementation, such as
`controller.kube.client.Client`, which has all verbs. Every verb raises `controller.kube.errors.KubeError`s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from controller.kube.codec import WatchEnvelope
from controller.kube.resources import Resource

T = TypeVar("T")

CREATE_DEADLINE: Final = 10.0
"""The usual deadline of a create, in seconds, after which the API server abandons it (`?timeout=`)."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list: its items, its resource version, and the token of the next page (empty on the last page)."""

    items: list[T]
    resource_version: str
    continue_token: str
    left_out: int = 0
    """Objects whose metadata did not decode."""


class Getter(Protocol):
    """Reads one object."""

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        """Read the newest state of one object (a quorum read). Raises NotFoundError."""
        ...


class Lister(Protocol):
    """Reads many objects."""

    async def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int,
        continue_token: str = "",
    ) -> Page[T]:
        """Read one page of the newest state (a quorum read); a `limit` of 0 reads all objects.

        Raises ExpiredError for a continue token that has expired.
        """
        ...


class Watcher(Protocol):
    """Watches for changes."""

    def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        life: float,
        namespace: str | None = None,
        label_selector: str | None = None,
    ) -> AsyncGenerator[list[WatchEnvelope], None]:
        """Yield an empty list when the watch is accepted, then the events of every chunk that arrives.

        The server ends the watch after `life` seconds.

        Raises TransportError when the connection breaks, is silent for too long or ends in the middle of an event;
        MalformedReplyError for a line that is no event; StatusError when the watch is refused.
        """
        ...


class Creator(Protocol):
    """Creates objects, reviews included."""

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
        strict: bool = False,
    ) -> T:
        """Create an object. The server gives up after `server_deadline` seconds, even if the client is disconnected.

        A `dry_run` passes admission and validation, and persists nothing. `strict` refuses fields that the resource
        does not have, which are dropped otherwise.

        Raises AlreadyExistsError if the name is taken, InvalidError for an unknown field.
        """
        ...


class Patcher(Protocol):
    """Patches objects."""

    async def merge_patch(
        self,
        resource: Resource[T],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Apply a JSON merge patch. Put `uid` and `resourceVersion` under its metadata to guard it.

        Raises NotFoundError, and ConflictError if a guard does not hold.
        """
        ...


class Applier(Protocol):
    """Applies objects (server-side apply)."""

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Apply a cluster-scoped object, and take over the fields that other managers own."""
        ...


class Deleter(Protocol):
    """Deletes objects."""

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
        """Delete exactly the object with this UID; return the resource version of the deletion, empty if unknown.

        Raises NotFoundError if the object no longer exists, ConflictError if an object with another UID has the name.
        """
        ...
