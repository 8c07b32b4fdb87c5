"""`vmsim drain`: drains nodes, and prints the progress.

Guarantees: the exit code is 0 only if no VM's pod is left on the nodes and every migration succeeded; a command that
ends early, for any reason, prints on standard error what it leaves behind and how to undo it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from controller.cli import copying, drain_plan, session
from controller.cli.connection import Connection
from controller.domain import names
from controller.kube import managers
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.operations import settings
from controller.operations.api import Api
from controller.operations.copying import Copies, following
from controller.operations.draining.asking import label
from controller.operations.draining.drain import Drain, how_to_go_on
from controller.operations.draining.order import Order
from controller.operations.errors import NoSuchNodeError, NotListedError
from controller.operations.planning import reading
from controller.operations.planning.reading import Wish
from controller.operations.planning.values import Plan
from controller.operations.text import counted, one_line


def aftermath(nodes: Collection[str], *, waiting: bool) -> str:
    """Return what a drain that ended early leaves behind, and how to undo it; `waiting`: migrations may be, too."""
    stay = f"{', '.join(nodes)} {'stays' if len(nodes) == 1 else 'stay'} cordoned"
    undo = f"    kubectl uncordon {' '.join(nodes)}"
    if not waiting:
        return f"{stay}. To undo that:\n\n{undo}"
    labels = [label(node) for node in nodes]
    selector = f"={labels[0]}" if len(labels) == 1 else f" in ({','.join(labels)})"
    written = f"{names.DRAIN_LABEL}{selector}"
    return (
        f"{stay}, and the migrations that were created go on. To undo that, and to cancel those that "
        "still wait:\n\n"
        f"{undo}\n"
        f"    kubectl delete vmm -A -l {written if len(labels) == 1 else repr(written)} "
        "--field-selector status.phase=Pending"
    )


def run(connection: Connection, order: Order, selector: str = "") -> None:
    """Drain the nodes, those with the labels of `selector` if it is given, and exit."""

    async def work(client: Client, scope: session.Scope) -> int:
        rng = Random()  # noqa: S311 - spreads retries, and makes our migrations' names unique
        nodes = await reading.named(client, selector) if selector else order.nodes
        wanted = replace(order, nodes=nodes)
        console = session.console()
        plan = await estimate(client, drain_plan.wished(nodes, wanted, scope), console)
        began = asyncio.get_running_loop().time()
        async with AsyncExitStack() as stack:
            copies = await _copies(stack, client, scope) if console.is_terminal else None
            await drained(client, wanted, console, rng, copies)
        if plan is not None:
            console.print(drain_plan.missed(plan, asyncio.get_running_loop().time() - began))
        return 0

    session.run(connection, work, manager=managers.DRAIN)


async def estimate(client: Api, wish: Wish, console: Console) -> Plan | None:
    """Print how the drain will go by the model; None, with the reason, if that is not known."""
    try:
        plan = (await reading.plan(client, wish, datetime.now(UTC))).plan
    except KubeError as error:  # what concerns the drain, too, ends it soon
        console.print(f"note: there is no estimate: {session.explain(error)}")
        return None
    except NoSuchNodeError:
        raise
    except Exception as error:  # noqa: BLE001 - an estimate is no reason to move no VM
        console.print(f"note: there is no estimate: {one_line(f'{type(error).__name__}: {error}')}")
        return None
    for each in plan.not_judged:
        if not each.vms:
            console.print(f"note: the estimate does not judge: {one_line(each.what)}")
    console.print(f"by the model, {drain_plan.verdict(plan)}")
    for line in drain_plan.blocked(plan):
        console.print(f"  {line}")
    return plan


async def _copies(stack: AsyncExitStack, client: Client, scope: session.Scope) -> Copies | None:
    """Return how far live moves are, for the bars; None if that cannot be read: the drain goes on without."""
    try:
        places = settings.places(scope.namespace, scope.home)
        return await stack.enter_async_context(following(client, scope.namespace, places))
    except (KubeError, NotListedError):
        return None


class _Screen:
    """Prints lines, and draws a bar for each node on a terminal, with what is being copied if `copies` is given."""

    def __init__(self, console: Console, copies: Copies | None) -> None:
        self._console = console
        self._copies = copies
        self._tasks: dict[str, TaskID] = {}
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[copying]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def line(self, line: str) -> None:
        """Print a line, above the bars."""
        self._console.print(line)

    def progress(self, node: str, done: int, total: int) -> None:
        """Update the bar of a node: `done` of `total` VMs."""
        if node not in self._tasks:
            self._tasks[node] = self.bars.add_task(f"draining {node}", copying="")
        leaving = self._copies.leaving(node) if self._copies is not None else ()
        self.bars.update(
            self._tasks[node], total=total, completed=done, copying=copying.summary(leaving, datetime.now(UTC))
        )


async def drained(client: Api, order: Order, console: Console, rng: Random, copies: Copies | None = None) -> None:
    """Drain nodes, and print the progress; on standard error, what is left behind. Raises as `Drain.run` does."""
    screen = _Screen(console, copies)
    drain = Drain(client, order, screen, rng)
    try:
        with screen.bars:
            outcomes = await drain.run()
    except asyncio.CancelledError:
        if drain.doubtful is not None:
            sys.stderr.write(f"\n{drain.doubtful} may be cordoned: {how_to_go_on(drain.doubtful)}\n")
        raise
    finally:
        if left := drain.unfinished:
            sys.stderr.write(f"\n{aftermath(left, waiting=any(left.values()))}\n\n")
    if len(outcomes) > 1:
        moved = sum(len(outcome.moved) for outcome in outcomes)
        console.print(f"{counted(len(outcomes), 'node')} are drained; {counted(moved, 'VM')} moved")
