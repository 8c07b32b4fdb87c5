"""What may be asked of the API server: one protocol per verb, with client-go's and controller-runtime's names.

Guarantees: a verb's signature stands here and at what carries it out, nowhere else. Whoever makes requests declares
the sum of the verbs that it uses (`class Leases(Getter, Creator, Patcher, Protocol)`), and may be given
`controller.kube.client.Client`, which has all of them, or anything else that does. Every verb raises
`controller.kube.errors.KubeError`s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from controller.kube.codec import WatchEnvelope
from controller.kube.resources import Resource

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list: the state it shows, and the token of the next page (empty at the end)."""

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
        """Read one page of the newest state (a quorum read), all of it with a `limit` of 0.

        Raises ExpiredError for an old token.
        """
        ...


class Watcher(Protocol):
    """Hears of changes."""

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
        MalformedReplyError for what is no event; StatusError when the watch is refused.
        """
        ...


class Creator(Protocol):
    """Makes objects; a review is one, too."""

    async def create(
        self,
        resource: Resource[T],
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        server_deadline: float,
        dry_run: bool = False,
    ) -> T:
        """Create an object. The server gives up after `server_deadline` seconds, whether or not we still listen.

        A `dry_run` goes all the way through admission and validation, and leaves nothing behind.

        Raises AlreadyExistsError if the name is taken.
        """
        ...


class Patcher(Protocol):
    """Changes objects."""

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
    """Applies objects on the server's side."""

    async def apply(self, resource: Resource[T], name: str, body: Mapping[str, Any]) -> T:
        """Apply a cluster-wide object; the fields that others have applied become ours, too."""
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
        """Delete exactly the object with this UID; return the resource version of the deletion, if told.

        Raises NotFoundError if it is gone, ConflictError if the name is another object's now.
        """
        ...
