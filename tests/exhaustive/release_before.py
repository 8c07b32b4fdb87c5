"""A controller of the release before live moves: it reads and writes no field of theirs.

Guarantees: the fields that it does not know keep their values, as under a merge patch that does not name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec

from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.resources import Resource
from controller.kube.verbs import Page
from tests.model.cluster import Cluster
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process

T = TypeVar("T")
_OF_VM: Final = ("lastIncarnation", "previousIncarnation", "lastHandOver")
_OF_CLAIM: Final = ("strategy", "targetIncarnation", "aborting", "barredByName", "mode")
_OF_MIGRATION: Final = ("strategy",)


def forget(item: T) -> T:
    """Return an object without what the release before does not know."""
    match item:
        case VirtualMachine(status=status):
            claim = status.migration
            if claim is not None:
                claim = msgspec.structs.replace(
                    claim, strategy=None, target_incarnation=None, aborting=None, barred_by_name=False, mode=None
                )
            known = msgspec.structs.replace(
                status, last_incarnation=None, previous_incarnation=None, last_hand_over=None, migration=claim
            )
            return msgspec.structs.replace(item, status=known)
        case VirtualMachineMigration(spec=spec, status=status):
            return msgspec.structs.replace(
                item,
                spec=msgspec.structs.replace(spec, strategy=None),
                status=msgspec.structs.replace(status, strategy=None),
            )
        case _:
            return item


def _known(body: Mapping[str, Any]) -> Document:
    """Return a patch without the fields that the release before does not send."""
    status = body.get("status")
    if status is None:
        return dict(body)
    known = {name: value for name, value in status.items() if name not in (*_OF_VM, *_OF_MIGRATION)}
    if known.get("migration"):
        known["migration"] = {name: value for name, value in known["migration"].items() if name not in _OF_CLAIM}
    return {**body, "status": known}


class _OldClient:
    """The requests of such a controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.delete = cluster.delete

    async def get(self, resource: Resource[T], name: str, *, namespace: str | None = None) -> T:
        return forget(await self._cluster.get(resource, name, namespace=namespace))

    async def list_page(self, resource: Resource[T], **how: Any) -> Page[T]:
        page = await self._cluster.list_page(resource, **how)
        return replace(page, items=[forget(item) for item in page.items])

    async def create(self, resource: Resource[T], body: Mapping[str, Any], **how: Any) -> T:
        return forget(await self._cluster.create(resource, body, **how))

    async def merge_patch(self, resource: Resource[T], name: str, body: Mapping[str, Any], **how: Any) -> T:
        return forget(await self._cluster.merge_patch(resource, name, _known(body), **how))


class OldProcess(Process):
    """A process of the release before."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, client=_OldClient(cluster))

    def _decode(self, plural: str, document: Document) -> Any:
        return forget(super()._decode(plural, document))
