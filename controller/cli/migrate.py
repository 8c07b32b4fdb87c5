"""`vmsim migrate`: creates the migration of a VM, and waits for it if requested.

Guarantees: a migration is created only for a VM that exists, by one request that is never repeated; a lost response is
reported as such. Waiting watches, without polling. Ctrl-C and `--timeout` do not stop the migration, and print how to
cancel it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from controller.cli import session
from controller.cli.connection import Connection
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import migrations, vms
from controller.operations.api import Api


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
        await migrate(client, scope.namespace, request, session.console())
        return 0

    session.run(connection, work, manager=managers.MIGRATE)


async def migrate(client: Api, namespace: str, request: Request, console: Console) -> None:
    """Create the migration, print its name, wait for it if requested. Raises as `vms.get`, `ask` and `follow` do."""
    wanted = migrations.MigrationRequest(
        vm=request.vm,
        namespace=namespace,
        to=request.to,
        reason=request.reason,
        priority=request.priority,
        strategy=request.strategy,
    )
    await vms.get(client, namespace, request.vm)
    try:
        created = await migrations.ask(client, wanted)
    except asyncio.CancelledError:
        sys.stderr.write(f"\nW{migrations.doubt(namespace)[1:]}\n")
        raise
    console.print(created.metadata.name)
    if not request.wait:
        return
    try:
        with _progress(console) as report:
            last = await migrations.follow(client, created, report=report, timeout=request.timeout)
    except asyncio.CancelledError:
        cancel = migrations.how_to_cancel(namespace, created.metadata.name)
        sys.stderr.write(f"\nThe migration goes on. To cancel it:\n\n    {cancel}\n")
        raise
    console.print(migrations.success(last))


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Show the progress: one line that is replaced on a terminal, line by line elsewhere."""
    if not console.is_terminal:
        yield console.print
        return
    with console.status("") as status:
        # A string would be parsed as markup, whatever the console's settings: rich would remove `[...]` from messages.
        yield lambda words: status.update(Text(words))
