"""Unloading: deletes the VMs and nodes that carry a fleet's label, and waits until they and the VMs' pods are deleted.

Guarantees: idempotent; no object without the label is touched, and every delete carries the UID of the object that was
listed; a refused delete does not stop the others; nodes are deleted last, and only if no VM is left, since KWOK
finishes no deletion of a pod on an unknown node; no wait outlasts the deadline, and the objects that are left are
named, with their finalizers or the API server's last message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Final, TypeVar

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.changes import HasMetadata
from controller.engine.listing import everything
from controller.kube.errors import ConflictError, NotFoundError, StatusError
from controller.kube.kinds import Node
from controller.kube.resources import NODES, PODS, Resource
from controller.operations.api import Api
from controller.operations.parallel import TICK, Requests, each
from controller.operations.waiting import held_by, termination
from controller.operations.watching import ChangeSignal, watching
from controller.scenario.errors import KeptError, NotGoneError
from controller.scenario.fleet import selector

T = TypeVar("T", bound=HasMetadata)
_NOT_ASKED: Final = "not deleted yet"
_PACE: Final = 0.1
"""Seconds between two checks of all objects: a check costs time in the number of VMs, and changes come singly."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The progress of an unload: the VMs (with their pods) and nodes deleted, of all; those left, with the reason."""

    done: int
    total: int
    waiting: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of an unload: the VMs (as `namespace/name`) and nodes that it deleted."""

    vms: tuple[str, ...]
    nodes: tuple[str, ...]


async def unload(client: Api, fleet: str, *, report: Callable[[Removal], None], deadline: float) -> Removed:
    """Delete every VM and node that carries the label of a fleet, in every namespace, within `deadline` seconds.

    `report` is called with the progress. The controller recreates foreign VMs that run on the fleet's nodes elsewhere
    once these nodes are deleted.

    Raises NotGoneError after the deadline, KeptError if the API server refused some deletes and all else is deleted,
    and the KubeErrors that a retry does not fix.
    """
    unloading = _Unload(client, fleet, report)
    try:
        async with asyncio.timeout(deadline):
            return await unloading.run()
    except TimeoutError:
        raise NotGoneError(deadline, unloading.left) from None


class _Unload:
    """One unload of a fleet."""

    def __init__(self, client: Api, fleet: str, report: Callable[[Removal], None]) -> None:
        self._client = client
        self._label = selector(fleet)
        self._report = report
        self._requests = Requests(Random(), lambda: None)  # noqa: S311 - spreads retries
        self._total = 0
        # The refusals of deletes, by UID.
        self._kept: dict[str, StatusError] = {}
        # The objects that are left, by name, with the reason.
        self.left: dict[str, str] = {"objects not listed yet": "the API server does not answer"}

    async def run(self) -> Removed:
        """Delete the VMs, then the nodes."""
        vms = await self._vms()
        nodes = await everything(self._client, NODES, label_selector=self._label)
        self._total = len(vms) + len(nodes)
        if vms:
            await self._remove_vms(vms, len(nodes))
        if nodes:
            await self._remove_nodes(nodes)
        return Removed(
            vms=tuple(sorted(vm.metadata.key for vm in vms)), nodes=tuple(sorted(node.metadata.name for node in nodes))
        )

    async def _vms(self) -> list[VirtualMachine]:
        try:
            return await everything(self._client, VIRTUAL_MACHINES, label_selector=self._label)
        except NotFoundError:  # the CRDs were deleted, and all VMs with them; nodes may be left
            return []

    async def _remove_vms(self, vms: list[VirtualMachine], nodes: int) -> None:
        signal = ChangeSignal()
        ours = {vm.metadata.uid: f"VM {vm.metadata.key}" for vm in vms}
        async with AsyncExitStack() as stack:
            watch = stack.enter_async_context
            shown = await watch(watching(self._client, VIRTUAL_MACHINES, signal.touch, label_selector=self._label))
            pods = await watch(watching(self._client, PODS, signal.touch, label_selector=names.VM_LABEL))

            def there() -> dict[str, str]:
                owned = {owner.uid: pod for pod in pods if (owner := ownership.owner(pod)) is not None}
                why = {uid: termination(pod) or f"pod {pod.metadata.name} exists" for uid, pod in owned.items()}
                return why | _left(shown)

            await self._remove(VIRTUAL_MACHINES, vms, ours, there, signal, later=nodes)

    async def _remove_nodes(self, nodes: list[Node]) -> None:
        signal = ChangeSignal()
        ours = {node.metadata.uid: f"node {node.metadata.name}" for node in nodes}
        async with watching(self._client, NODES, signal.touch, label_selector=self._label) as shown:
            await self._remove(NODES, nodes, ours, lambda: _left(shown), signal, later=0)

    async def _remove(
        self,
        resource: Resource[T],
        objects: Iterable[T],
        ours: Mapping[str, str],
        there: Callable[[], Mapping[str, str]],
        signal: ChangeSignal,
        *,
        later: int,
    ) -> None:
        """Delete objects, and wait until none of `ours` (names by UID) exists; `later` more objects are deleted after.

        `there` returns the objects that still exist, by UID, with the reason.
        """
        self.left = dict.fromkeys(ours.values(), _NOT_ASKED)
        deleting = asyncio.create_task(
            each(objects, lambda item: self._delete(resource, item, ours[item.metadata.uid]))
        )
        try:
            while True:
                if deleting.done():
                    deleting.result()  # raises the error that ended it
                found = there()
                self.left = {name: found[uid] for uid, name in ours.items() if uid in found and uid not in self._kept}
                self.left |= {
                    name: f"{_NOT_ASKED}: {why}"
                    for name, why in self._requests.waiting.items()
                    if self.left.get(name) == _NOT_ASKED
                }
                self._report(Removal(self._total - len(self.left) - later, self._total, self.left))
                if not self.left and deleting.done():
                    break
                await signal.change(TICK)
                await asyncio.sleep(_PACE)
        finally:
            deleting.cancel()
            await asyncio.gather(deleting, return_exceptions=True)
        if self._kept:
            raise KeptError({ours[uid]: str(error) for uid, error in self._kept.items()})

    async def _delete(self, resource: Resource[T], item: T, what: str) -> None:
        metadata = item.metadata

        async def request() -> None:
            await self._client.delete(resource, metadata.name, namespace=metadata.namespace or None, uid=metadata.uid)

        try:
            await self._requests.retrying(what, request)
        except (NotFoundError, ConflictError):  # it no longer exists, or a newer object has its name
            return
        except StatusError as error:
            self._kept[metadata.uid] = error


def _left(objects: Iterable[HasMetadata]) -> dict[str, str]:
    """Return, by UID, why each object still exists."""
    return {
        item.metadata.uid: f"being deleted{held_by(item.metadata)}" if item.metadata.deletion_timestamp else _NOT_ASKED
        for item in objects
    }
