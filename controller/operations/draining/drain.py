"""Draining nodes: cordon them all, then move every VM off them, one node after the other or several at once.

Guarantees: every node is cordoned before any VM moves, so no VM moves to a node that is drained next; each reason for
which the drain of a node waits is reported within ten seconds, with a VM's name; a change in the cluster wakes only the
nodes that it concerns; VMs that do not move from one node do not stop the drain of another; an error undoes nothing,
and `cordoned`, `doubtful` and `unfinished` are the state that it leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import structlog

from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.listing import everything
from controller.kube.errors import ForbiddenError, KubeError, NotFoundError
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS
from controller.operations import migrations as moves
from controller.operations.api import Api
from controller.operations.budgets import BUDGETS, unanswerable
from controller.operations.draining.asking import Asking
from controller.operations.draining.order import Order
from controller.operations.draining.survey import (
    Caches,
    Ours,
    Survey,
    by_node_of_pod,
    by_node_of_vm,
    by_vm,
    survey,
)
from controller.operations.draining.waits import Announcer, waits
from controller.operations.errors import (
    DrainFailedError,
    NoSuchNodeError,
    TimedOutError,
    may_be_done,
    translated,
)
from controller.operations.parallel import each
from controller.operations.text import counted
from controller.operations.watching import ChangeSignal, watching

_log = structlog.get_logger(__name__)

_TICK: Final = 1.0
"""Seconds after which a node is surveyed without a change: waits are reported by their age."""


class Listener(Protocol):
    """Receives the progress of a drain."""

    def line(self, line: str) -> None:
        """Take one line for the user."""
        ...

    def progress(self, node: str, done: int, total: int) -> None:
        """Take the number of a node's VMs that have moved or failed, and of all its VMs."""
        ...


class _Unheard:
    def line(self, line: str) -> None:
        """Ignore it."""

    def progress(self, node: str, done: int, total: int) -> None:
        """Ignore it."""


UNHEARD: Final[Listener] = _Unheard()
"""For a caller that needs only the outcome."""


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """How the drain of one node ended. VMs are named `namespace/name`."""

    node: str
    moved: Mapping[str, VirtualMachineMigration]
    """The migration of each VM that moved."""
    failed: Mapping[str, str]
    """VMs whose migration failed or was refused, and why."""
    left: tuple[str, ...]
    """VMs that the drain still waited for at the timeout."""
    asked: int
    """How many VMs' migrations the API server accepted or refused."""

    @property
    def drained(self) -> bool:
        """Whether no VM is left on the node."""
        return not self.failed and not self.left


class Drain:
    """One drain of some nodes. `rng` makes the names of its migrations unique to it."""

    def __init__(self, client: Api, order: Order, listener: Listener, rng: Random) -> None:
        self._client = client
        self._order = order
        self._say = listener.line
        self._nodes = {node: _Node(client, node, order, listener, rng) for node in order.nodes}
        self._active: dict[str, _Node] = {}
        self._outcomes: dict[str, NodeOutcome] = {}
        self.cordoned: list[str] = []
        """Nodes that this drain has cordoned so far."""
        self.doubtful: str | None = None
        """The node whose cordon request was cancelled before its answer: it may be cordoned."""

    @property
    def created(self) -> tuple[VirtualMachineMigration, ...]:
        """The migrations of this drain, as they were created."""
        return tuple(item for node in self._nodes.values() for item in node.asking.created.values())

    @property
    def unfinished(self) -> dict[str, bool]:
        """The cordoned nodes that are not drained, each with whether migrations of its VMs may still be in progress."""
        ended = {node: self._outcomes.get(node) for node in self.cordoned}
        return {
            node: (outcome is None or bool(outcome.left)) and self._nodes[node].asking.began
            for node, outcome in ended.items()
            if outcome is None or not outcome.drained
        }

    async def run(self) -> tuple[NodeOutcome, ...]:
        """Cordon the nodes and move their VMs; return the outcome of each node, in order, if all are drained.

        Raises NoSuchNodeError (of several nodes: before any is cordoned, if nodes may be read); DrainFailedError if VMs
        did not move; TimedOutError; CRDOutdatedError if the cluster's migrations have no strategy; KubeError if it does
        not serve our resources or forbids the cordon.
        """
        # First of all: a cluster that does not serve our resources must not be left with a cordoned node.
        await self._client.list_page(MIGRATIONS, limit=1)
        if len(self._nodes) > 1:
            for node in self._nodes:
                await self._look_for(node)
        for node in self._nodes:
            await self._cordon(node)
        namespace = self._order.namespace
        async with AsyncExitStack() as stack:
            watch = stack.enter_async_context
            client = self._client
            caches = Caches(
                vms=await watch(
                    watching(client, VIRTUAL_MACHINES, self._vm_changed, namespace=namespace, index=by_node_of_vm)
                ),
                pods=await watch(
                    watching(
                        client,
                        PODS,
                        self._pod_changed,
                        namespace=namespace,
                        label_selector=names.VM_LABEL,
                        index=by_node_of_pod,
                    )
                ),
                migrations=await watch(
                    watching(client, MIGRATIONS, self._migration_changed, namespace=namespace, index=by_vm)
                ),
            )
            await self._name_budgets(caches)
            clock = asyncio.get_running_loop().time
            ends = clock() + self._order.timeout if self._order.timeout is not None else float("inf")

            async def empty(node: _Node) -> None:
                self._active[node.name] = node
                self._outcomes[node.name] = await node.empty(caches, ends)
                del self._active[node.name]

            at_a_time = min(self._order.parallel_nodes, max(len(self._nodes), 1))
            await each(self._nodes.values(), empty, at_a_time=at_a_time)
        return self._verdict()

    def _verdict(self) -> tuple[NodeOutcome, ...]:
        ended = tuple(self._outcomes[node] for node in self._nodes)
        left = [key for outcome in ended for key in outcome.left]
        if left:
            raise TimedOutError(
                f"after {self._order.timeout:g} s {counted(len(left), 'VM')} not done: {', '.join(left)}"
            )
        failed = {key: why for outcome in ended for key, why in outcome.failed.items()}
        if failed:
            asked = sum(outcome.asked for outcome in ended)
            raise DrainFailedError(f"{len(failed)} of {counted(asked, 'VM')} did not move", failed=failed)
        return ended

    async def _look_for(self, node: str) -> None:
        try:
            await self._client.get(NODES, node)
        except NotFoundError as error:
            raise _no_such(node) from error
        except ForbiddenError:  # cordoning needs no right to read
            return

    async def _cordon(self, node: str) -> None:
        try:
            await self._client.merge_patch(NODES, node, {"spec": {"unschedulable": True}})
        except asyncio.CancelledError:
            self.doubtful = node
            raise
        except NotFoundError as error:
            raise _no_such(node) from error
        except KubeError as error:
            if may_be_done(error):
                raise translated(error, doubt=f"{node} may be cordoned all the same: {how_to_go_on(node)}") from error
            raise
        self.cordoned.append(node)
        self._say(f"{node} is cordoned")

    async def _name_budgets(self, caches: Caches) -> None:
        """Report budgets that block evictions for good; they do not block migrations."""
        try:
            budgets = await everything(self._client, BUDGETS)
        except KubeError as error:  # the right to move VMs does not imply the right to read budgets
            _log.debug("budgets are not looked at", error=str(error))
            return
        covered = (pod for node in self._nodes for pod in caches.pods.by_index(node))
        for line in unanswerable(budgets, covered):
            self._say(f"note: {line}")

    # --- which nodes a change concerns ---------------------------------------------------------------------

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        for vm in (old, new):
            if vm is not None:
                self._touch(vm.metadata.key, vm.status.node_name)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is not None:
                self._touch("", pod.spec.node_name)

    def _migration_changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        for migration in (old, new):
            if migration is not None:
                self._touch(migration.vm_key, None)

    def _touch(self, key: str, name: str | None) -> None:
        for node in self._active.values():
            if node.name == name or node.concerns(key):
                node.signal.touch()


class _Node:
    """The drain of one node; `signal` wakes it when an object that concerns it changes."""

    def __init__(self, client: Api, name: str, order: Order, listener: Listener, rng: Random) -> None:
        self.name = name
        self.signal = ChangeSignal()
        self.asking = Asking(client, name, order, rng, listener.line)
        self._listener = listener
        self._announcer = Announcer()
        self._clock = asyncio.get_running_loop().time
        self._reported: set[str] = set()
        self._seen: frozenset[str] = frozenset()

    def concerns(self, key: str) -> bool:
        """Whether a change of this VM concerns the drain of the node."""
        return key in self._seen or self.asking.concerns(key)

    async def empty(self, caches: Caches, ends: float) -> NodeOutcome:
        """Migrate the node's VMs until the drain is settled, or until `ends` (monotonic seconds)."""
        asking, clock = self.asking, self._clock
        while True:
            ours = asking.newest(caches.migrations)
            unanswered = asking.unanswered
            now = survey(self.name, caches, ours=ours, refused=asking.refused, unanswered=unanswered)
            self._seen = now.there
            late = clock() >= ends
            self._report_endings(now, ours)
            waited = waits(self.name, caches, now, ours=ours, unanswered=unanswered)
            for line in self._announcer.due(waited, clock(), all_now=late):
                self._listener.line(line)
            self._listener.progress(
                self.name, len(now.moved) + len(now.failed), len(now.on_node | now.to_move.keys() | ours.keys())
            )
            if now.settled or late:
                return self._end(now, ours)
            if due := asking.due(now):
                await asking.ask(due, now.to_move)
                continue
            await self.signal.change(min(_TICK, ends - clock()))

    def _end(self, now: Survey, ours: Ours) -> NodeOutcome:
        for key in sorted(self.asking.refused.keys() & now.failed.keys()):
            self._listener.line(f"{key}: refused: {self.asking.refused[key]}")
        moved = {key: migration for key in sorted(now.moved) if (migration := ours[key]) is not None}
        left = () if now.settled else now.left
        outcome = NodeOutcome(self.name, moved, now.failed, left, self.asking.asked)
        if outcome.drained:
            self._listener.line(f"{self.name} is drained; {counted(len(moved), 'VM')} moved")
        return outcome

    def _report_endings(self, now: Survey, ours: Ours) -> None:
        """Report the end of each migration, once."""
        for key in sorted((now.moved | now.failed.keys()) - self._reported - self.asking.refused.keys()):
            self._reported.add(key)
            migration = ours[key]
            if key in now.failed:
                self._listener.line(f"{key}: failed: {now.failed[key]}")
            elif migration is not None:
                self._listener.line(f"{migration.metadata.namespace}/{moves.success(migration)}")


def how_to_go_on(node: str) -> str:
    """Return what to do about a node that may be cordoned."""
    return f"drain it again, or kubectl uncordon {node}"


def _no_such(node: str) -> NoSuchNodeError:
    return NoSuchNodeError(f"there is no node {node}: see kubectl get nodes")
