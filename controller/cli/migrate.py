"""`vmsim migrate`: ask for a VM to move, and watch it move.

Guarantees: a migration is created only for a VM that exists, and never asked for twice: a lost answer is told as such;
while waiting nothing is polled, and no way out (Ctrl-C, `--timeout`) stops the migration: it says how to.
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
    """What a person asked for."""

    vm: str
    to: str | None = None
    reason: str | None = None
    priority: str | None = None
    wait: bool = False
    timeout: float | None = None


def run(connection: Connection, request: Request) -> None:
    """Create the migration, wait if that is wanted, exit."""

    async def work(client: Client, namespace: str) -> int:
        await migrate(client, namespace, request, session.console())
        return 0

    session.run(connection, work, manager=managers.MIGRATE)


async def migrate(client: Api, namespace: str, request: Request, console: Console) -> None:
    """Create the migration, tell its name, wait if that is wanted. Raises what `vms.get`, `ask` and `follow` raise."""
    wanted = migrations.MigrationRequest(
        vm=request.vm, namespace=namespace, to=request.to, reason=request.reason, priority=request.priority
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
        with _progress(console) as tell:
            last = await migrations.follow(client, created, tell=tell, timeout=request.timeout)
    except asyncio.CancelledError:
        cancel = migrations.how_to_cancel(namespace, created.metadata.name)
        sys.stderr.write(f"\nThe migration goes on. To cancel it:\n\n    {cancel}\n")
        raise
    console.print(migrations.success(last))


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Show how far it is: as a line that changes on a terminal, else line by line."""
    if not console.is_terminal:
        yield console.print
        return
    with console.status("") as status:
        # A string would be read as markup, whatever the console prints: rich takes `[...]` out of the server's words.
        yield lambda words: status.update(Text(words))
