"""`vmsim drain`: cordon a node, then move every VM off it, one migration each, within the controller's limits.

Guarantees: the node is cordoned before anything moves; a VM gets one migration of ours at most, and none while it has
an unfinished one; the exit code is 0 only when no VM's pod is on the node and every migration has ended well; nothing
is undone on a way out, but how to undo it is said.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controller.cli import exits, session
from controller.domain import names
from controller.domain.objects import Pod, VirtualMachine, VirtualMachineMigration
from controller.engine.store import Store
from controller.kube.client import Client
from controller.kube.errors import NotFoundError
from controller.kube.resources import MIGRATIONS, NODES, PODS, VIRTUAL_MACHINES
from controller.operations import migrations as moves
from controller.operations.api import SERVER_DEADLINE
from controller.operations.watching import View, watching

PRIORITY: Final = "system-critical"
_TICK: Final = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for."""

    node: str
    reason: str
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Where a drain stands. VMs are named `namespace/name`."""

    to_move: tuple[VirtualMachine, ...]
    """VMs that need a migration, in order."""
    on_node: frozenset[str]
    under_way: frozenset[str]
    """VMs whose migration of ours has not ended."""
    moved: frozenset[str]
    failed: Mapping[str, str]
    """VMs whose migration of ours failed, and why."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left that could still move."""
        return not self.to_move and not self.under_way and self.on_node <= self.failed.keys()


def survey(
    node: str,
    *,
    vms: Iterable[VirtualMachine],
    pods: Iterable[Pod],
    migrations: Iterable[VirtualMachineMigration],
    ours: Mapping[str, VirtualMachineMigration | None],
) -> Survey:
    """Look at a node that is being drained; `ours` is the newest state of our migration of each VM, None if deleted."""
    by_key = {vm.metadata.key: vm for vm in vms}
    busy = {m.vm_key for m in migrations if not m.finished and m.spec.record_of is None}
    ended = {key: migration for key, migration in ours.items() if migration is None or migration.finished}
    failed = {key: "its migration was deleted" for key, migration in ended.items() if migration is None} | {
        key: moves.failure(migration)
        for key, migration in ended.items()
        if migration is not None and migration.status.phase == "Failed"
    }
    on_node = frozenset(
        f"{pod.metadata.namespace}/{owner.name}"
        for pod in pods
        if pod.spec.node_name == node and not pod.done and (owner := pod.owner) is not None
    )
    wanted = {key for key, vm in by_key.items() if vm.spec.running and vm.metadata.deletion_timestamp is None}
    return Survey(
        to_move=tuple(
            by_key[key]
            for key in sorted(wanted - busy - ours.keys())
            if by_key[key].status.phase == "Running" and by_key[key].status.node_name == node
        ),
        on_node=on_node,
        under_way=frozenset(ours.keys() - ended.keys()),
        moved=frozenset(ended.keys() - failed.keys()),
        # A VM that was stopped or deleted meanwhile has left the node, too, and not by a failure of ours.
        failed={key: why for key, why in failed.items() if key in wanted},
    )


def hindrance(migration: VirtualMachineMigration) -> str | None:
    """Return, in one word, what a migration waits for, unless it is only for its turn."""
    if migration.status.phase != "Pending":
        return None
    reasons = (condition.reason for condition in migration.status.conditions if condition.type == "Completed")
    reason = next(reasons, "")
    return reason if reason and reason != "WaitingForTurn" else None


def label(node: str) -> str:
    """Return the label's value by which the migrations of a drain are found: node names may be longer than labels."""
    return node[: names.LONGEST_LABEL].rstrip("-.")


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


def run(kubeconfig: str | None, request: Request) -> None:
    """Drain the node, and exit."""

    async def work(client: Client, _: str) -> int:
        return await _Drain(client, request, session.console()).run()

    session.run(kubeconfig, work)


class _Drain:
    """One drain, from the cordon to the verdict."""

    def __init__(self, client: Client, request: Request, console: Console) -> None:
        self._client = client
        self._request = request
        self._node = request.node
        self._console = console
        self._view = View()
        self._created: dict[str, VirtualMachineMigration] = {}
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
                vms = await watch(watching(self._client, VIRTUAL_MACHINES, self._view))
                pods = await watch(
                    watching(self._client, PODS, self._view, label_selector=names.VM_LABEL),
                )
                migrations = await watch(watching(self._client, MIGRATIONS, self._view))
                last = await self._move(vms, pods, migrations)
        finally:
            if last is None or last.failed:
                waiting = last is None and bool(self._created)
                sys.stderr.write(f"\n{aftermath(self._node, waiting=waiting)}\n\n")
        if last.failed:
            raise exits.CommandError(f"{len(last.failed)} of {_count(len(self._created), 'VM')} did not move")
        self._console.print(f"{self._node} is drained; {_count(len(last.moved), 'VM')} moved")
        return 0

    async def _move(
        self, vms: Store[VirtualMachine], pods: Store[Pod], migrations: Store[VirtualMachineMigration]
    ) -> Survey:
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
                ours = {key: _newest(migration, migrations) for key, migration in self._created.items()}
                now = survey(self._node, vms=vms, pods=pods, migrations=migrations, ours=ours)
                self._tell(now, ours)
                total = len(now.on_node | {vm.metadata.key for vm in now.to_move} | ours.keys())
                progress.update(bar, total=total, completed=len(now.moved) + len(now.failed))
                if now.settled:
                    return now
                if now.to_move:
                    await self._create(now.to_move)
                    continue
                if clock() >= ends:
                    left = sorted(now.on_node | now.under_way)
                    raise exits.CommandError(
                        f"after {self._request.timeout:g} s {_count(len(left), 'VM')} not done: {', '.join(left)}"
                    )
                await self._view.change(min(_TICK, ends - clock()))

    async def _create(self, vms: Iterable[VirtualMachine]) -> None:
        for vm in vms:
            wish = moves.Wish(
                vm=vm.metadata.name,
                namespace=vm.metadata.namespace,
                reason=self._request.reason,
                priority=PRIORITY,
                labels={names.DRAIN_LABEL: label(self._node)},
            )
            created = await self._client.create(
                MIGRATIONS, moves.manifest(wish), namespace=wish.namespace, server_deadline=SERVER_DEADLINE
            )
            self._created[vm.metadata.key] = created
            self._console.print(f"{vm.metadata.key}: migration {created.metadata.name} created")

    def _tell(self, now: Survey, ours: Mapping[str, VirtualMachineMigration | None]) -> None:
        """Print each ending, and each reason to wait, once."""
        for key, migration in sorted(ours.items()):
            reason = hindrance(migration) if migration is not None else None
            if migration is not None and reason is not None and f"{key} {reason}" not in self._told:
                self._told.add(f"{key} {reason}")
                self._console.print(f"{key}: {moves.progress(migration, 0)}")
        for key in sorted((now.moved | now.failed.keys()) - self._told):
            self._told.add(key)
            migration = ours[key]
            if key in now.failed:
                self._console.print(f"{key}: failed: {now.failed[key]}")
            elif migration is not None:
                self._console.print(f"{migration.metadata.namespace}/{moves.success(migration)}")


def _newest(created: VirtualMachineMigration, store: Store[VirtualMachineMigration]) -> VirtualMachineMigration | None:
    """Return what became of a migration; None once the cache shows that it was deleted."""
    shown = store.get(created.metadata.key)
    if shown is not None:
        return shown
    return None if store.has_reached(created.metadata.resource_version) else created


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
