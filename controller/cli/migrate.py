"""`vmsim migrate`: creates the migration of a VM, and waits for it if requested; or cancels it.

Guarantees: a migration is created only for a VM that exists, by one request that is never repeated; a lost response is
reported as such. Waiting watches, without polling. One Ctrl-C, SIGTERM and `--timeout` do not stop the migration, and
print how to cancel it; a second Ctrl-C soon after the first cancels it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.text import Text

from controller.cli import copying, session
from controller.cli.connection import Connection
from controller.cli.exits import INTERRUPTED
from controller.cli.interrupts import Presses, counted
from controller.cli.lines import Lines
from controller.domain.objects import VirtualMachineMigration
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import cancelling, migrations, settings, vms
from controller.operations.api import Api
from controller.operations.copying import Copies, following
from controller.operations.migrations import Step

T = TypeVar("T")

_SPARSE: Final = 10.0
"""Seconds between two lines while it copies, where no terminal replaces them."""
GRACE: Final = 3.0
"""Seconds after the first Ctrl-C in which a second one cancels the migration."""


@dataclass(frozen=True, slots=True)
class Request:
    """The command's arguments; `timeout` is in seconds."""

    vm: str
    to: str | None = None
    reason: str | None = None
    priority: str | None = None
    strategy: str | None = None
    wait: bool = False
    timeout: float | None = None


def run(connection: Connection, request: Request) -> None:
    """Create the migration, wait for it if requested, and exit."""

    async def work(client: Client, scope: session.Scope) -> int:
        return await migrate(client, scope, request, session.console())

    session.run(connection, work, manager=managers.MIGRATE)


async def migrate(
    client: Api,
    scope: session.Scope,
    request: Request,
    console: Console,
    presses: Callable[[], AbstractContextManager[Presses]] = counted,
) -> int:
    """Create the migration, print its name, wait for it if requested; return the exit code.

    Raises as `vms.get`, `ask`, `follow` and `cancelling.one` do.
    """
    namespace = scope.namespace
    wanted = migrations.MigrationRequest(
        vm=request.vm,
        namespace=namespace,
        to=request.to,
        reason=request.reason,
        priority=request.priority,
        strategy=request.strategy,
    )
    vm = await vms.get(client, namespace, request.vm)
    try:
        created = await migrations.ask(client, wanted)
    except asyncio.CancelledError:
        sys.stderr.write(f"\nW{migrations.doubt(namespace)[1:]}\n")
        raise
    console.print(created.metadata.name)
    if not request.wait:
        return 0
    copies = partial(_copies, client, namespace, settings.places(namespace, scope.home), vm.controller_class)
    follow = partial(migrations.follow, client, created, timeout=request.timeout, copies=copies)
    with presses() as pressed:
        return await _followed(client, created, follow, console, pressed)


@asynccontextmanager
async def _copies(client: Api, namespace: str, places: Sequence[str], of_class: str | None) -> AsyncIterator[Copies]:
    async with following(client, namespace, places, of_class) as found:
        for note in found.notes:
            sys.stderr.write(f"note: {note}\n")
        yield found


async def _followed(
    client: Api,
    created: VirtualMachineMigration,
    follow: Callable[..., Coroutine[Any, Any, VirtualMachineMigration]],
    console: Console,
    pressed: Presses,
) -> int:
    """Follow a migration; the first Ctrl-C stops that in a moment, the second cancels the migration."""
    how = migrations.how_to_cancel(created.metadata.namespace, created.metadata.name)
    with _progress(console) as report:
        work = asyncio.create_task(follow(report=report))
        try:
            if not await pressed.during(work):
                console.print(migrations.success(work.result()))
                return 0
            sys.stderr.write(
                f"\nThe migration goes on. Ctrl-C again within {GRACE:g} s cancels it; later, this does:\n\n    {how}\n"
            )
            again = await pressed.during(work, within=GRACE)
        except asyncio.CancelledError:
            sys.stderr.write(f"\nThe migration goes on. To cancel it:\n\n    {how}\n")
            raise
        finally:
            await _stopped(work)
    if not work.cancelled():
        console.print(migrations.success(work.result()))
        return 0
    if again:
        await _cancel(client, created, console, pressed)
    return INTERRUPTED


async def _cancel(client: Api, created: VirtualMachineMigration, console: Console, pressed: Presses) -> None:
    """Cancel the migration, and print what came of it; Ctrl-C stops waiting for that."""
    work = asyncio.create_task(cancelling.one(client, created))
    try:
        if await pressed.during(work):
            sys.stderr.write("\nWhether the migration is cancelled is not known: see vmsim migrations\n")
            return
        _print_cancelled(console, work.result())
    finally:
        await _stopped(work)


async def _stopped(work: asyncio.Task[T]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def _print_cancelled(console: Console, ended: Iterable[VirtualMachineMigration]) -> None:
    for migration in ended:
        console.print(f"{migration.metadata.name}: {migrations.failure(migration)}")


def cancel(connection: Connection, vm: str) -> None:
    """Cancel the migrations of a VM, print how they ended, and exit."""

    async def work(client: Client, scope: session.Scope) -> int:
        _print_cancelled(session.console(), await cancelling.of_vm(client, scope.namespace, vm))
        return 0

    session.run(connection, work, manager=managers.MIGRATE)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Step], None]]:
    """Show the progress: on a terminal in place; elsewhere line by line, at intervals while it copies."""
    if not console.is_terminal:
        lines = Lines(console, every=_SPARSE)
        yield lambda step: lines.report(step.line, _words(step))
        return
    with console.status("") as status:
        # A string would be parsed as markup, whatever the console's settings: rich would remove `[...]` from messages.
        yield lambda step: status.update(
            Text(step.line) if step.estimate is None else copying.bar(step.line, step.estimate, datetime.now(UTC))
        )


def _words(step: Step) -> str:
    return step.line if step.estimate is None else f"{step.line}, {copying.words(step.estimate, datetime.now(UTC))}"
