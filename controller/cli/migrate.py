"""`vmsim migrate`: ask for a VM to move, and watch it move.

Guarantees: a migration is created only for a VM that exists; while waiting nothing is polled, and no way out
(Ctrl-C, `--timeout`) stops the migration: it says how to.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from controller.cli import session
from controller.cli.connection import Connection
from controller.domain import names
from controller.kube.client import Client
from controller.operations import migrations


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
        return await _migrate(client, namespace, request)

    session.run(connection, work, manager=names.MIGRATE_MANAGER)


async def _migrate(client: Client, namespace: str, request: Request) -> int:
    wish = migrations.Wish(
        vm=request.vm, namespace=namespace, to=request.to, reason=request.reason, priority=request.priority
    )
    created = await migrations.create(client, wish)
    console = session.console()
    console.print(created.metadata.name)
    if not request.wait:
        return 0
    try:
        with console.status("") as status:
            tell = status.update if console.is_terminal else console.print
            last = await migrations.follow(client, created, tell=tell, timeout=request.timeout)
    except asyncio.CancelledError:
        cancel = migrations.how_to_cancel(namespace, created.metadata.name)
        sys.stderr.write(f"\nThe migration goes on. To cancel it while its VM is untouched:\n\n    {cancel}\n")
        raise
    console.print(migrations.success(last))
    return 0
