"""The requests that reconcilers make (`controller.kube.client.Client` has them all), and the Events that they record.

Guarantees: `Fenced` sends no write while the process does not lead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from controller.kube import errors
from controller.kube.event import Event
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, Resource
from controller.kube.verbs import Creator, Deleter, Getter, Lister, Patcher

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Record: TypeAlias = Callable[[ObjectMeta, Event], None]
"""Takes an Event about an object; returns at once."""


def no_events(_: ObjectMeta, __: Event) -> None:
    """Record nothing."""


class Api(Getter, Lister, Creator, Patcher, Deleter, Protocol):
    """The verbs that a reconcile uses."""


async def patch_status(api: Api, resource: Resource[T], metadata: ObjectMeta, status: Mapping[str, Any]) -> T | None:
    """Merge `status` into an object that is still as the cache shows it; return it, or None if it is deleted.

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
    """Whether a live read finds no such node: the cache of nodes may lag."""
    try:
        await api.get(NODES, name)
    except errors.NotFoundError:
        return True
    return False


class Fenced:
    """Fences the writes of `api`: while `leads` returns False, a write raises NotLeadingError and is not sent."""

    def __init__(self, api: Api, leads: Callable[[], bool]) -> None:
        self.get = api.get
        self.list_page = api.list_page
        self.create = _only_while(leads, api.create)
        self.merge_patch = _only_while(leads, api.merge_patch)
        self.delete = _only_while(leads, api.delete)


def _only_while(leads: Callable[[], bool], write: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    async def fenced(*args: P.args, **kwargs: P.kwargs) -> R:
        if not leads():
            raise errors.NotLeadingError("this process does not lead now, so it writes nothing")
        return await write(*args, **kwargs)

    return fenced
