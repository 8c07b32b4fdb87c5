"""The surroundings of a drill's scenario: fleet, observer and controller, and methods to act on the cluster and wait.

Guarantees: every wait ends at the drill's deadline at the latest, and at once if the controller has ended by itself or
the observer has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from controller.domain import names
from controller.domain.objects import Strategy, VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.client import Client
from controller.kube.resources import NODES
from controller.kube.verbs import CREATE_DEADLINE
from controller.observe import judge
from controller.observe.history import ClusterState
from controller.observe.observer import Observer
from controller.operations.draining.drain import UNHEARD, Drain
from controller.operations.draining.order import Order
from controller.operations.errors import DrainFailedError
from hack.drills.errors import DrillError
from hack.drills.process import Controller
from hack.drills.seeding import DesiredVM

_AT_ONCE: Final = 16
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Round:
    """A part of a drill with figures of its own in the report."""

    label: str
    began: float
    ended: float
    migrations: tuple[str, ...]


@dataclass(slots=True)
class Stage:
    """One drill's stage. `strategy` is that of its migrations; None: the controller's default.

    `desired` is the fleet that the drill needs, `vms` the existing one, names by UID; `asked` are the UIDs of all
    requested migrations; `complaints` are the drill's own failed checks.
    """

    client: Client
    observer: Observer
    controller: Controller
    namespace: str
    rng: Random
    ends_at: float
    say: Callable[[str], None]
    strategy: Strategy | None = None
    desired: tuple[DesiredVM, ...] = ()
    vms: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    # --- waiting -----------------------------------------------------------------------------------------

    async def until(self, wanted: Callable[[ClusterState], bool], what: str, *, seconds: float | None = None) -> bool:
        """Wait until the observed state is wanted; return False on timeout, a complaint unless `seconds` is given."""
        return await self._ended(self.observer.when(wanted), what, seconds=seconds)

    async def _ended(self, work: asyncio.Future[Any], what: str, *, seconds: float | None = None) -> bool:
        """Wait for the end of a task, or cancel it on timeout and return False."""
        loop = asyncio.get_running_loop()
        left = self.ends_at - loop.time()
        failure = asyncio.create_task(self.controller.failure())
        broken = self.observer.broken
        try:
            await asyncio.wait(
                {work, failure, broken},
                timeout=max(0.0, left if seconds is None else min(left, seconds)),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return True
            for failed in (broken, failure):
                if failed.done():
                    failed.result()
        finally:
            work.cancel()
            failure.cancel()
        if seconds is None:
            self.complaints.append(f"the deadline passed before {what}")
        return False

    async def settle(self, what: str = "every VM ran again") -> bool:
        """Wait until every VM runs in one pod and no migration is in progress."""
        return await self.until(self.settled, what)

    def settled(self, picture: ClusterState) -> bool:
        """Return whether every VM runs in its only pod, its status says so, and every migration has ended."""
        migrations = picture.migrations
        return (
            all(uid in migrations for uid in self.asked)
            and all(migration.over for migration in migrations.values() if not migration.record)
            and all(_runs(picture, uid) for uid in self.vms)
        )

    @contextmanager
    def round(self, label: str) -> Iterator[None]:
        """Report the events of this context as a round of its own."""
        began = self.observer.now
        asked = len(self.asked)
        self.say(label)
        try:
            yield
        finally:
            self.rounds.append(Round(label, began, self.observer.now, tuple(self.asked[asked:])))

    # --- acting ------------------------------------------------------------------------------------------

    async def seed(self, desired: Iterable[DesiredVM]) -> None:
        """Create the VMs and wait until they run.

        The controller starts first: it does not move VMs that it finds at its start for 20 s, since a create of the
        previous process may still be in flight.
        """
        await self.controller.ready()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def create(vm: DesiredVM) -> VirtualMachine:
            async with slots:
                return await self.client.create(
                    VIRTUAL_MACHINES, vm.manifest(), namespace=self.namespace, server_deadline=CREATE_DEADLINE
                )

        created = await asyncio.gather(*(create(vm) for vm in desired))
        self.vms = {vm.metadata.uid: vm.metadata.name for vm in created}
        if not await self.settle("every VM ran for the first time"):
            idle = judge.not_running(self.observer.picture, self.vms)
            raise DrillError("\n  ".join(["the drill cannot begin, since not every VM runs:", *idle[:_NAMED]]))

    async def disband(self) -> None:
        """Judge the fleet as it is, then delete it and wait until its VMs and pods no longer exist."""
        self.complaints += judge.not_running(self.observer.picture, self.vms)
        fleet, self.vms = self.vms, {}
        await asyncio.gather(
            *(
                self.client.delete(VIRTUAL_MACHINES, name, namespace=self.namespace, uid=uid)
                for uid, name in fleet.items()
            )
        )

        def deleted(state: ClusterState) -> bool:
            return not any(uid in state.vms or state.pods_of(uid) for uid in fleet)

        if not await self.until(deleted, "the VMs and their pods were deleted"):
            raise DrillError("the VMs and their pods were not deleted in time")

    async def migrate(self, vm_names: Iterable[str], **spec: Any) -> list[str]:
        """Request a migration of each VM, all at once; return the migrations' UIDs."""
        first = len(self.asked)
        if self.strategy is not None:
            spec["strategy"] = str(self.strategy)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def create(number: int, vm: str) -> str:
            body = {
                "apiVersion": names.API_VERSION,
                "kind": "VirtualMachineMigration",
                "metadata": {"name": f"drill-{number}-{vm}"},
                "spec": {"vmName": vm, **spec},
            }
            async with slots:
                migration = await self.client.create(
                    MIGRATIONS, body, namespace=self.namespace, server_deadline=CREATE_DEADLINE
                )
            return migration.metadata.uid

        uids = await asyncio.gather(*(create(number, vm) for number, vm in enumerate(vm_names, first + 1)))
        self.asked += uids
        return uids

    async def drain(self, node: str) -> bool:
        """Drain a node as `vmsim drain` does; return False on timeout."""
        order = Order((node,), f"drill: drain of {node}", namespace=self.namespace, strategy=self.strategy)
        drain = Drain(self.client, order, UNHEARD, self.rng)
        work = asyncio.create_task(drain.run())
        try:
            if not await self._ended(work, f"the migrations of {node}'s VMs ended"):
                return False
            with suppress(DrainFailedError):  # failures are judged from the history
                await work
        finally:
            await asyncio.wait({work})
            self.asked += [migration.metadata.uid for migration in drain.created]
        return True

    async def cordon(self, node: str, *, wanted: bool = True) -> None:
        """Cordon a node, or uncordon it."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": True if wanted else None}})

    def on(self, node: str) -> list[str]:
        """Return the names of the VMs on a node, sorted."""
        return sorted({pod.vm for pod in self.observer.picture.on(node)})


def _runs(picture: ClusterState, uid: str) -> bool:
    """Return whether a VM runs and its status says so: before that, a request may be refused."""
    live = picture.live(uid)
    vm = picture.vms.get(uid)
    return (
        len(live) == 1
        and picture.serves(live[0])
        and vm is not None
        and (vm.phase, vm.node) == ("Running", live[0].node)
    )
