"""What a scenario has at hand: the fleet, the observer, the controller, and how to act on the cluster and wait.

Guarantees: every wait ends, at the drill's deadline at the latest, and at once if the controller has ended by itself
or the observation is broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.client import Client
from controller.kube.resources import NODES
from controller.observe import judge
from controller.observe.history import ClusterState
from controller.observe.observer import Observer
from controller.operations.api import SERVER_DEADLINE
from controller.operations.draining.drain import UNHEARD, Drain, Order
from controller.operations.errors import DrainFailedError
from hack.drills.errors import DrillError
from hack.drills.process import Controller
from hack.drills.seeding import Wish

_AT_ONCE: Final = 16
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Round:
    """A part of a drill that is reported by itself."""

    label: str
    began: float
    ended: float
    migrations: tuple[str, ...]


@dataclass(slots=True)
class Stage:
    """One drill's stage.

    `wishes` are the fleet that the drill wants, `vms` the one there is, names by UID; `asked` are the UIDs of all
    migrations asked for; `complaints` are what went otherwise than the drill wants.
    """

    client: Client
    observer: Observer
    controller: Controller
    namespace: str
    rng: Random
    ends_at: float
    say: Callable[[str], None]
    wishes: tuple[Wish, ...] = ()
    vms: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    # --- waiting -----------------------------------------------------------------------------------------

    async def until(self, wanted: Callable[[ClusterState], bool], what: str, *, seconds: float | None = None) -> bool:
        """Wait until the picture is the wanted one; return False when the time for it is over."""
        return await self._ended(self.observer.when(wanted), what, seconds=seconds)

    async def _ended(self, work: asyncio.Future[Any], what: str, *, seconds: float | None = None) -> bool:
        """Wait for the end of some work, or end it when the time is over, and return False."""
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
            self.complaints.append(f"the time was over before {what}")
        return False

    async def settle(self, what: str = "every VM ran again") -> bool:
        """Wait until every VM runs in one pod and no migration is under way."""
        return await self.until(self.settled, what)

    def settled(self, picture: ClusterState) -> bool:
        """Whether every VM runs in its only pod, the controller knows it, and every migration has ended."""
        migrations = picture.migrations
        return (
            all(uid in migrations for uid in self.asked)
            and all(migration.over for migration in migrations.values() if not migration.record)
            and all(_runs(picture, uid) for uid in self.vms)
        )

    @contextmanager
    def round(self, label: str) -> Iterator[None]:
        """Report what happens in this context by itself."""
        began = self.observer.now
        asked = len(self.asked)
        self.say(label)
        try:
            yield
        finally:
            self.rounds.append(Round(label, began, self.observer.now, tuple(self.asked[asked:])))

    # --- acting ------------------------------------------------------------------------------------------

    async def seed(self, wishes: Iterable[Wish]) -> None:
        """Create the VMs and wait until they run.

        The controller comes first: one that finds VMs when it starts lets them where they are for 20 s, since a create
        of the process before it may still be under way.
        """
        await self.controller.ready()
        turns = asyncio.Semaphore(_AT_ONCE)

        async def create(wish: Wish) -> VirtualMachine:
            async with turns:
                return await self.client.create(
                    VIRTUAL_MACHINES, wish.manifest(), namespace=self.namespace, server_deadline=SERVER_DEADLINE
                )

        made = await asyncio.gather(*(create(wish) for wish in wishes))
        self.vms = {vm.metadata.uid: vm.metadata.name for vm in made}
        if not await self.settle("every VM ran for the first time"):
            idle = judge.not_running(self.observer.picture, self.vms)
            raise DrillError("\n  ".join(["the drill cannot begin, since not every VM runs:", *idle[:_NAMED]]))

    async def disband(self) -> None:
        """Judge the fleet as it is, then delete it and wait until nothing is left of it."""
        self.complaints += judge.not_running(self.observer.picture, self.vms)
        fleet, self.vms = self.vms, {}
        await asyncio.gather(
            *(
                self.client.delete(VIRTUAL_MACHINES, name, namespace=self.namespace, uid=uid)
                for uid, name in fleet.items()
            )
        )

        def gone(picture: ClusterState) -> bool:
            return not any(uid in picture.vms or picture.pods_of(uid) for uid in fleet)

        if not await self.until(gone, "the deleted VMs were gone"):
            raise DrillError("the deleted VMs are not gone")

    async def migrate(self, vm_names: Iterable[str], **spec: Any) -> list[str]:
        """Ask for a migration of each VM, all at once; return the migrations' UIDs."""
        first = len(self.asked)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def create(number: int, vm: str) -> str:
            body = {
                "apiVersion": names.API_VERSION,
                "kind": "VirtualMachineMigration",
                "metadata": {"name": f"drill-{number}-{vm}"},
                "spec": {"vmName": vm, **spec},
            }
            async with turns:
                made = await self.client.create(
                    MIGRATIONS, body, namespace=self.namespace, server_deadline=SERVER_DEADLINE
                )
            return made.metadata.uid

        made = await asyncio.gather(*(create(number, vm) for number, vm in enumerate(vm_names, first + 1)))
        self.asked += made
        return made

    async def drain(self, node: str) -> bool:
        """Drain a node as `vmsim drain` does; return False when the time for it is over."""
        drain = Drain(
            self.client, Order((node,), f"drill: drain of {node}", namespace=self.namespace), UNHEARD, self.rng
        )
        work = asyncio.create_task(drain.run())
        try:
            if not await self._ended(work, f"the migrations of {node}'s VMs ended"):
                return False
            with suppress(DrainFailedError):  # what failed is judged by what was observed
                await work
        finally:
            await asyncio.wait({work})
            self.asked += [migration.metadata.uid for migration in drain.created]
        return True

    async def cordon(self, node: str, *, wanted: bool = True) -> None:
        """Keep new pods from a node, or no longer."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": True if wanted else None}})

    def on(self, node: str) -> list[str]:
        """Name the VMs that a node holds, in order."""
        return sorted({pod.vm for pod in self.observer.picture.on(node)})


def _runs(picture: ClusterState, uid: str) -> bool:
    """Whether a VM runs, and its status says so: what is asked for earlier may be refused, since it does not."""
    live = picture.live(uid)
    vm = picture.vms.get(uid)
    return (
        len(live) == 1
        and picture.serves(live[0])
        and vm is not None
        and (vm.phase, vm.node) == ("Running", live[0].node)
    )
