"""`vmsim drain`: cordon a node, then move every VM off it, one migration each, within the controller's limits.

Guarantees: the node is cordoned before anything moves; a VM gets one migration of ours at most, and none while it has
an unfinished one; what the API server leaves unanswered is asked again under the same name, and what it refuses keeps
no other VM from moving; whatever the drain waits for is said within ten seconds, by name; the exit code is 0 only when
no VM's pod is on the node and every migration has ended well; nothing is undone on a way out, but how to undo it is
said.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Final

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controller.cli import exits, session
from controller.cli.connection import Connection
from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.backoff import Backoff
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube import managers, naming
from controller.kube.client import Client
from controller.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
    StatusError,
    TooManyRequestsError,
    TransportError,
)
from controller.kube.resources import NODES, PODS
from controller.operations import migrations as moves
from controller.operations.api import SERVER_DEADLINE, Api
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
from controller.operations.errors import may_be_done, translated
from controller.operations.text import one_line
from controller.operations.watching import View, watching
from controller.scenario.parallel import passing, retry_after

_log = structlog.get_logger(__name__)

PRIORITY: Final = "system-critical"
_TICK: Final = 1.0
_NEVER: Final = float("-inf")
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two rounds of questions to an API server that does not answer them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for."""

    node: str
    reason: str
    timeout: float | None = None


def label(node: str) -> str:
    """Return the label's value by which the migrations of a drain are found: node names may be longer than labels."""
    return naming.label_value(node)


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
        rng = Random()  # noqa: S311 - spreads retries, and tells our migrations' names from others'
        return await Drain(client, request, session.console(), rng).run()

    session.run(connection, work, manager=managers.DRAIN)


@dataclass(frozen=True, slots=True)
class _Question:
    """When a migration was asked for that may be there (monotonic, in seconds), and what was said instead of that."""

    at: float
    said: str


class Drain:
    """One drain, from the cordon to the verdict. `rng` makes the names of its migrations its own."""

    def __init__(self, client: Api, request: Request, console: Console, rng: Random) -> None:
        self._client = client
        self._request = request
        self._node = request.node
        self._console = console
        self._view = View()
        self._announcer = Announcer()
        self._created: dict[str, VirtualMachineMigration] = {}
        self._refused: dict[str, str] = {}
        self._told: set[str] = set()
        self._id = f"{rng.getrandbits(64):x}"
        self._clock = asyncio.get_running_loop().time
        self._backoff = Backoff(self._clock, rng)
        # All by VM.
        self._wishes: dict[str, moves.Wish] = {}
        # Those without an answer, the longest ago first; none is asked for again before this time.
        self._unanswered: dict[str, _Question] = {}
        self._next_round = 0.0

    async def run(self) -> int:
        """Cordon and move; return the exit code. Raises CommandError with how to undo it on standard error."""
        # Asked for first: a cluster without our resources must not be left with a cordoned node.
        await self._client.list_page(MIGRATIONS, limit=1)
        again = f"drain it again, or kubectl uncordon {self._node}"
        try:
            await self._client.merge_patch(NODES, self._node, {"spec": {"unschedulable": True}})
        except NotFoundError as error:
            raise exits.CommandError(f"there is no node {self._node}: see kubectl get nodes") from error
        except asyncio.CancelledError:
            sys.stderr.write(f"\n{self._node} may be cordoned: {again}\n")
            raise
        except KubeError as error:
            if may_be_done(error):
                raise translated(error, doubt=f"{self._node} may be cordoned all the same: {again}") from error
            raise
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
                waiting = last is None and bool(self._wishes)
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
        clock = self._clock
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
                self._recognize(caches.migrations)
                ours = {key: _newest(migration, caches.migrations) for key, migration in self._created.items()}
                unanswered = {key: question.said for key, question in self._unanswered.items()}
                now = survey(self._node, caches, ours=ours, refused=self._refused, unanswered=unanswered)
                late = clock() >= ends
                self._tell_endings(now, ours)
                waited = waits(self._node, caches, now, ours=ours, unanswered=unanswered)
                for line in self._announcer.due(waited, clock(), all_now=late):
                    self._console.print(line)
                total = len(now.on_node | {vm.metadata.key for vm in now.to_move} | ours.keys())
                progress.update(bar, total=total, completed=len(now.moved) + len(now.failed))
                if now.settled:
                    self._tell_refusals(now)
                    return now
                if not late and (due := self._due(now)):
                    await self._ask(due, now.to_move)
                    continue
                if late:
                    self._tell_refusals(now)
                    left = now.left
                    raise exits.CommandError(
                        f"after {self._request.timeout:g} s {_count(len(left), 'VM')} not done: {', '.join(left)}"
                    )
                await self._view.change(min(_TICK, ends - clock()))

    def _due(self, now: Survey) -> list[str]:
        """Return the VMs to ask about now: at once those that nobody asked about yet, the others after a pause."""
        fresh = [vm.metadata.key for vm in now.to_move if vm.metadata.key not in self._unanswered]
        return fresh + (list(self._unanswered) if self._clock() >= self._next_round else [])

    async def _ask(self, due: Sequence[str], to_move: Iterable[VirtualMachine]) -> None:
        """Ask once for each VM's migration, or whether it is there if the VM needs none any more."""
        needed = {vm.metadata.key: vm for vm in to_move}
        self._wishes |= {key: self._wish(needed[key]) for key in due if key in needed}
        pause = 0.0
        for place, key in enumerate(due):
            try:
                await (self._create(key) if key in needed else self._look_for(key))
            except KubeError as error:
                if not (passing(error) or isinstance(error, ConflictError)):  # a quota's count moves under many creates
                    self._refuse(key, error)
                    continue
                pause = max(pause, retry_after(error) or 0.0)
                # Load, and a server out of reach, would keep the others from an answer, too. They are first next time.
                rest = due[place + 1 :] if isinstance(error, TooManyRequestsError | TransportError) else ()
                for other in rest:
                    self._leave_open(other, error)
                self._leave_open(key, error, at=self._clock() if key in needed else _NEVER)
                if rest:
                    break
        if not self._unanswered.keys().isdisjoint(due):
            self._next_round = self._clock() + min(self._backoff.delay(at_least=pause), _LONGEST_PAUSE)

    def _wish(self, vm: VirtualMachine) -> moves.Wish:
        """Return what is asked for, always under the same name: asking again makes no second migration."""
        return moves.Wish(
            vm=vm.metadata.name,
            namespace=vm.metadata.namespace,
            reason=self._request.reason,
            priority=PRIORITY,
            labels={names.DRAIN_LABEL: label(self._node)},
            name=names.migration_name(vm.metadata.name, f"{self._id}/{vm.metadata.uid}"),
        )

    async def _create(self, key: str) -> None:
        wish = self._wishes[key]
        try:
            created = await self._client.create(
                MIGRATIONS, moves.manifest(wish), namespace=wish.namespace, server_deadline=SERVER_DEADLINE
            )
        except AlreadyExistsError:
            created = await self._get(wish)
            if not self._is_ours(created, key):
                raise
        self._take(key, created)

    async def _look_for(self, key: str) -> None:
        try:
            found = await self._get(self._wishes[key])
        except NotFoundError:
            if self._clock() >= self._unanswered[key].at + SERVER_DEADLINE:  # before that it may yet come
                del self._unanswered[key]
            return
        self._take(key, found)

    async def _get(self, wish: moves.Wish) -> VirtualMachineMigration:
        return await self._client.get(MIGRATIONS, str(wish.name), namespace=wish.namespace)

    def _recognize(self, shown: Store[VirtualMachineMigration]) -> None:
        """Take what was carried out although its answer was lost."""
        for key in list(self._unanswered):
            wish = self._wishes[key]
            found = shown.get(f"{wish.namespace}/{wish.name}")
            if found is not None and self._is_ours(found, key):
                self._take(key, found)

    def _take(self, key: str, migration: VirtualMachineMigration) -> None:
        self._unanswered.pop(key, None)
        self._created[key] = migration
        self._console.print(f"{key}: migration {migration.metadata.name} created")

    def _refuse(self, key: str, error: KubeError) -> None:
        if not isinstance(error, StatusError):
            raise error
        self._unanswered.pop(key, None)
        self._refused[key] = one_line(error.message)

    def _leave_open(self, key: str, error: KubeError, *, at: float = _NEVER) -> None:
        """Note what was said instead of an answer; `at` is when the migration was asked for, if it was."""
        before = self._unanswered.pop(key, None)
        at = max(at, before.at if before is not None else _NEVER)
        self._unanswered[key] = _Question(at, str(translated(error)))

    def _is_ours(self, migration: VirtualMachineMigration, key: str) -> bool:
        """Whether a migration of our name is not by chance somebody else's."""
        return migration.vm_key == key and migration.metadata.labels.get(names.DRAIN_LABEL) == label(self._node)

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
