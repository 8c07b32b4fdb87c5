"""Watches one namespace independently of the proxy and of the controller.

Guarantees: every event that the API server sends is in `history`, in the order of its resource's versions, with its
time of arrival (seconds on the loop's clock); a broken watch resumes from the last version, and if that is impossible
the witness fails rather than miss an event. Only a witness with `gaps` lists again: a restarted API server has no older
versions.

It interprets watches itself, without `controller.engine.watch`: that stream is under test here, and a defect in it must
not distort the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias, TypeVar

from controller.domain import ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube import codec, errors
from controller.kube.client import Client
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectOnly
from controller.kube.resources import PODS, Resource

T = TypeVar("T", VirtualMachine, Pod, VirtualMachineMigration)
Object: TypeAlias = VirtualMachine | Pod | VirtualMachineMigration

_WATCH_TIMEOUT: Final = 3600.0
_RETRY: Final = 0.5
_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One event: the state of an object at a time. `first` marks objects that existed when the witness started."""

    at: float
    item: Object
    deleted: bool = False
    first: bool = False


@dataclass(slots=True)
class ClusterState:
    """The existing objects, by UID."""

    vms: dict[str, VirtualMachine] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    migrations: dict[str, VirtualMachineMigration] = field(default_factory=dict)

    def apply(self, seen: Seen) -> None:
        """Apply one event."""
        match seen.item:
            case VirtualMachine():
                _put(self.vms, seen.item, deleted=seen.deleted)
            case Pod():
                _put(self.pods, seen.item, deleted=seen.deleted)
            case VirtualMachineMigration():
                _put(self.migrations, seen.item, deleted=seen.deleted)

    def of(self, kind: type[Object]) -> list[Object]:
        """Return all of a kind."""
        everything: tuple[Object, ...] = (*self.vms.values(), *self.pods.values(), *self.migrations.values())
        return [item for item in everything if isinstance(item, kind)]

    def vm(self, name: str) -> VirtualMachine | None:
        """Return a VM by its name."""
        return next((vm for vm in self.vms.values() if vm.metadata.name == name), None)

    def pods_of(self, vm: VirtualMachine) -> list[Pod]:
        """Return the pods that a VM controls."""
        return [pod for pod in self.pods.values() if ownership.belongs_to(pod, vm)]

    def migration(self, name: str) -> VirtualMachineMigration | None:
        """Return a migration by its name."""
        return next((found for found in self.migrations.values() if found.metadata.name == name), None)


def _put(into: dict[str, T], item: T, *, deleted: bool) -> None:
    if deleted:
        into.pop(item.metadata.uid, None)
    else:
        into[item.metadata.uid] = item


class WitnessError(Exception):
    """The witness has missed an event, so the run cannot be judged."""


class Witness:
    """Watches one namespace. Use as an async context manager."""

    def __init__(self, client: Client, namespace: str, *, gaps: bool = False) -> None:
        self._client = client
        self._namespace = namespace
        self._gaps = gaps
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._problem: str | None = None
        self.history: list[Seen] = []
        self.cluster = ClusterState()

    async def __aenter__(self) -> Self:
        resources: tuple[Resource[Any], ...] = (VIRTUAL_MACHINES, PODS, MIGRATIONS)
        for resource in resources:
            page = await self._client.list_page(resource, namespace=self._namespace, limit=0)
            for item in page.items:
                self._take(Seen(self._loop.time(), item, first=True))
            self._tasks.append(asyncio.create_task(self._follow(resource, page.resource_version)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, wanted: Callable[[ClusterState], bool], *, seconds: float) -> bool:
        """Wait until `wanted` is true of the cluster; False if it is not in time. Raises WitnessError."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while not wanted(self.cluster):
                    self._check()
                    await self._changed.wait()
        except TimeoutError:
            return False
        self._check()
        return True

    async def settled(self, wanted: Callable[[ClusterState], bool], *, quiet: float, seconds: float) -> float | None:
        """Wait until `wanted` is true of the cluster and nothing has changed for `quiet` seconds.

        Return the time of the last change before that, or None if it does not come in time. Raises WitnessError.
        """
        ends = self._loop.time() + seconds
        while await self.until(wanted, seconds=ends - self._loop.time()):
            changes, last = len(self.history), self.changed_at
            wait = last + quiet - self._loop.time()
            if wait > 0:
                await self.until(lambda _, known=changes: len(self.history) > known, seconds=wait)  # type: ignore[misc]
            if len(self.history) == changes and wanted(self.cluster):
                return last
            if self._loop.time() > ends:
                break
        return None

    @property
    def changed_at(self) -> float:
        """The time of the last event."""
        return self.history[-1].at if self.history else self._loop.time()

    def _check(self) -> None:
        if self._problem is not None:
            raise WitnessError(self._problem)

    async def _follow(self, resource: Resource[Any], version: str) -> None:
        failing_since: float | None = None
        while True:
            try:
                batches = self._client.watch(
                    resource, resource_version=version, life=_WATCH_TIMEOUT, namespace=self._namespace
                )
                async with aclosing(batches):
                    async for batch in batches:
                        failing_since = None
                        for event in batch:
                            version = self._apply(event, resource)
                        async with self._changed:
                            self._changed.notify_all()
            except errors.ExpiredError as error:
                if not self._gaps:
                    return await self._fail(f"events of {resource.plural} were missed: {error}")
                version = await self._catch_up(resource)
            except errors.MalformedReplyError as error:
                return await self._fail(f"events of {resource.plural} were missed: {error}")
            except errors.KubeError as error:
                # After an outage the server still has our version, whatever it replied before.
                failing_since = failing_since or self._loop.time()
                if self._loop.time() - failing_since > _TIMEOUT:
                    return await self._fail(f"watching {resource.plural} fails: {error}")
                await asyncio.sleep(_RETRY)

    async def _catch_up(self, resource: Resource[Any]) -> str:
        """List again, and record the differences as events."""
        page = None
        while page is None:
            try:
                page = await self._client.list_page(resource, namespace=self._namespace, limit=0)
            except errors.KubeError:
                await asyncio.sleep(_RETRY)
        there = {item.metadata.uid for item in page.items}
        for item in self.cluster.of(resource.type):
            if item.metadata.uid not in there:
                self._take(Seen(self._loop.time(), item, deleted=True))
        for item in page.items:
            self._take(Seen(self._loop.time(), item))
        return page.resource_version

    async def _fail(self, why: str) -> None:
        self._problem = why
        async with self._changed:
            self._changed.notify_all()

    def _apply(self, event: codec.WatchEnvelope, resource: Resource[Any]) -> str:
        if event.type == "ERROR":
            status = codec.decode_status(bytes(event.object))
            raise errors.from_status(status.code, status.reason, status.message)
        if event.type == "BOOKMARK":
            return codec.decode(event.object, ObjectOnly).metadata.resource_version
        item = codec.decode(event.object, resource.type)
        self._take(Seen(self._loop.time(), item, deleted=event.type == "DELETED"))
        return str(item.metadata.resource_version)

    def _take(self, seen: Seen) -> None:
        self.history.append(seen)
        self.cluster.apply(seen)
