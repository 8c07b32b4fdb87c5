"""`vmsim drain`: cordon a node, then move every VM off it, one migration each, within the controller's limits.

Guarantees: the node is cordoned before anything moves; a VM gets one migration of ours at most, and none while it has
an unfinished one; a VM whose migration is refused keeps no other from moving; whatever the drain waits for is said
within ten seconds, by name; the exit code is 0 only when no VM's pod is on the node and every migration has ended well;
nothing is undone on a way out, but how to undo it is said.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controller.cli import exits, session
from controller.cli.connection import Connection
from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.client import Client
from controller.kube.errors import KubeError, NotFoundError, StatusError, TooManyRequestsError
from controller.kube.resources import MIGRATIONS, NODES, PODS, VIRTUAL_MACHINES
from controller.operations import migrations as moves
from controller.operations.api import SERVER_DEADLINE
from controller.operations.budgets import BUDGETS, unanswerable
from controller.operations.draining import (
    Announcer,
    Caches,
    Ours,
    Survey,
    by_node_of_pod,
    by_node_of_vm,
    by_vm,
    survey,
    waits,
)
from controller.operations.text import one_line
from controller.operations.watching import View, watching

_log = structlog.get_logger(__name__)

PRIORITY: Final = "system-critical"
_TICK: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
"""Seconds of a Retry-After that are believed."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for."""

    node: str
    reason: str
    timeout: float | None = None


def label(node: str) -> str:
    """Return the label's value by which the migrations of a drain are found: node names may be longer than labels."""
    return names.label_value(node)


def aftermath(node: str, *, waiting: bool) -> str:
    """Say what a drain that ended early leaves behind, and how to undo it."""
    if not waiting:
        return f"{node} stays cordoned. To undo that:\n\n    kubectl uncordon {node}"
    selector = f"{names.DRAIN_LABEL}={label(node)}"
    return (
        f"{node} stays cordoned, and the migrations that were created go on. To undo that, and to cancel those that "
        "still wait:\n\n"
        f"    kubectl uncordon {node}\n"
        f"    kubectl delete vmm -A -l {selector} --field-selector status.phase=Pending"
    )


def run(connection: Connection, request: Request) -> None:
    """Drain the node, and exit."""

    async def work(client: Client, _: str) -> int:
        return await _Drain(client, request, session.console()).run()

    session.run(connection, work, manager=names.DRAIN_MANAGER)


class _Drain:
    """One drain, from the cordon to the verdict."""

    def __init__(self, client: Client, request: Request, console: Console) -> None:
        self._client = client
        self._request = request
        self._node = request.node
        self._console = console
        self._view = View()
        self._announcer = Announcer()
        self._created: dict[str, VirtualMachineMigration] = {}
        self._refused: dict[str, str] = {}
        self._told: set[str] = set()

    async def run(self) -> int:
        """Cordon and move; return the exit code. Raises CommandError with how to undo it on standard error."""
        # Asked for first: a cluster without our resources must not be left with a cordoned node.
        await self._client.list_page(MIGRATIONS, limit=1)
        try:
            await self._client.merge_patch(NODES, self._node, {"spec": {"unschedulable": True}})
        except NotFoundError as error:
            raise exits.CommandError(f"there is no node {self._node}: see kubectl get nodes") from error
        self._console.print(f"{self._node} is cordoned")
        last: Survey | None = None
        try:
            async with AsyncExitStack() as stack:
                watch = stack.enter_async_context
                caches = Caches(
                    vms=await watch(watching(self._client, VIRTUAL_MACHINES, self._view, index=by_node_of_vm)),
                    pods=await watch(
                        watching(self._client, PODS, self._view, label_selector=names.VM_LABEL, index=by_node_of_pod)
                    ),
                    migrations=await watch(watching(self._client, MIGRATIONS, self._view, index=by_vm)),
                )
                await self._name_budgets(caches)
                last = await self._move(caches)
        finally:
            if last is None or last.failed:
                waiting = last is None and bool(self._created)
                sys.stderr.write(f"\n{aftermath(self._node, waiting=waiting)}\n\n")
        if last.failed:
            asked = len(self._created.keys() | self._refused.keys())
            raise exits.CommandError(f"{len(last.failed)} of {_count(asked, 'VM')} did not move")
        self._console.print(f"{self._node} is drained; {_count(len(last.moved), 'VM')} moved")
        return 0

    async def _name_budgets(self, caches: Caches) -> None:
        """Tell of budgets that will stand in the way of whoever evicts, though not in ours."""
        try:
            budgets = await everything(self._client, BUDGETS)
        except KubeError as error:  # who may move VMs need not be allowed to read budgets
            _log.debug("budgets are not looked at", error=str(error))
            return
        for line in unanswerable(budgets, caches.pods.by_index(self._node)):
            self._console.print(f"note: {line}")

    async def _move(self, caches: Caches) -> Survey:
        """Migrate what is on the node until nothing is left to do; return how that ended."""
        clock = asyncio.get_running_loop().time
        ends = clock() + self._request.timeout if self._request.timeout is not None else float("inf")
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        ) as progress:
            bar = progress.add_task(f"draining {self._node}", total=None)
            while True:
                ours = {key: _newest(migration, caches.migrations) for key, migration in self._created.items()}
                now = survey(self._node, caches, ours=ours, refused=self._refused)
                late = clock() >= ends
                self._tell_endings(now, ours)
                for line in self._announcer.due(waits(self._node, caches, now, ours=ours), clock(), all_now=late):
                    self._console.print(line)
                total = len(now.on_node | {vm.metadata.key for vm in now.to_move} | ours.keys())
                progress.update(bar, total=total, completed=len(now.moved) + len(now.failed))
                if now.settled:
                    self._tell_refusals(now)
                    return now
                if now.to_move and not late:
                    await self._create(now.to_move)
                    continue
                if late:
                    self._tell_refusals(now)
                    left = now.left
                    raise exits.CommandError(
                        f"after {self._request.timeout:g} s {_count(len(left), 'VM')} not done: {', '.join(left)}"
                    )
                await self._view.change(min(_TICK, ends - clock()))

    async def _create(self, vms: Iterable[VirtualMachine]) -> None:
        """Ask for a migration of each VM; what is refused is remembered, and keeps no other from being asked for."""
        for vm in vms:
            wish = moves.Wish(
                vm=vm.metadata.name,
                namespace=vm.metadata.namespace,
                reason=self._request.reason,
                priority=PRIORITY,
                labels={names.DRAIN_LABEL: label(self._node)},
            )
            try:
                created = await self._client.create(
                    MIGRATIONS, moves.manifest(wish), namespace=wish.namespace, server_deadline=SERVER_DEADLINE
                )
            except TooManyRequestsError as error:
                pause = min(max(error.retry_after or 0.0, _TICK), _LONGEST_PAUSE)
                self._console.print(f"the API server asks for a pause: going on in {pause:g} s")
                await asyncio.sleep(pause)
                return  # the next look finds the same VMs to move
            except StatusError as error:
                self._refused[vm.metadata.key] = one_line(error.message)
                continue
            self._created[vm.metadata.key] = created
            self._console.print(f"{vm.metadata.key}: migration {created.metadata.name} created")

    def _tell_endings(self, now: Survey, ours: Ours) -> None:
        """Print how each migration ended, once."""
        for key in sorted((now.moved | now.failed.keys()) - self._told - self._refused.keys()):
            self._told.add(key)
            migration = ours[key]
            if key in now.failed:
                self._console.print(f"{key}: failed: {now.failed[key]}")
            elif migration is not None:
                self._console.print(f"{migration.metadata.namespace}/{moves.success(migration)}")

    def _tell_refusals(self, now: Survey) -> None:
        """Print, at the end, which migrations the API server would not take, in its words."""
        for key in sorted(self._refused.keys() & now.failed.keys()):
            self._console.print(f"{key}: refused: {self._refused[key]}")


def _newest(created: VirtualMachineMigration, store: Store[VirtualMachineMigration]) -> VirtualMachineMigration | None:
    """Return what became of a migration; None once the cache shows that it was deleted."""
    shown = store.get(created.metadata.key)
    if shown is not None:
        return shown
    return None if store.has_reached(created.metadata.resource_version) else created


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
