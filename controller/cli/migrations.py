"""`vmsim migrations`: prints the table of migrations, each with the reason why it waits or failed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from controller.cli import session
from controller.cli.connection import Connection
from controller.cli.tables import Column, Grid
from controller.cli.text import age, cell
from controller.domain.objects import VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.engine.listing import everything
from controller.kube import managers
from controller.kube.client import Client
from controller.operations.text import one_line

_HEADERS: Final = ("NAME", "PHASE", "VM", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE", "MESSAGE")
_SENTENCES: Final = ("REASON", "MESSAGE")
_COLOURS: Final = {
    "Pending": "yellow",
    "Terminating": "cyan",
    "Scheduling": "cyan",
    "Starting": "cyan",
    "Scheduled": "cyan",
    "Running": "cyan",
    "Succeeded": "green",
    "Failed": "bold red",
}


def run(connection: Connection, *, everywhere: bool) -> None:
    """Print the table, and exit."""

    async def work(client: Client, scope: session.Scope) -> int:
        where = None if everywhere else scope.namespace
        found = await everything(client, MIGRATIONS, namespace=where)
        if found:
            session.console().print(table(found, namespaces=everywhere, now=datetime.now(UTC)), soft_wrap=False)
        else:
            sys.stderr.write(f"No migrations in {f'namespace {where}' if where else 'any namespace'}.\n")
        return 0

    session.run(connection, work, manager=managers.MIGRATE)


def table(migrations: Iterable[VirtualMachineMigration], *, namespaces: bool, now: datetime) -> Grid:
    """Return kubectl's columns and why each migration waits or failed, oldest first in each namespace."""
    headers = (*(("NAMESPACE",) if namespaces else ()), *_HEADERS)
    drawn = Grid(*(Column(header, folds=header in _SENTENCES) for header in headers))
    for migration in sorted(migrations, key=_order):
        metadata, spec, status = migration.metadata, migration.spec, migration.status
        drawn.add(
            *((cell(metadata.namespace),) if namespaces else ()),
            cell(metadata.name),
            cell(status.phase, _COLOURS.get(status.phase, "")),
            cell(spec.vm_name),
            cell(status.source_node),
            cell(status.target_node),
            cell(spec.reason),
            cell(status.downtime_seconds),
            cell(age(metadata.creation_timestamp, now)),
            cell(_message(migration)),
        )
    return drawn


def _order(migration: VirtualMachineMigration) -> tuple[str, str, str]:
    metadata = migration.metadata
    return metadata.namespace, metadata.creation_timestamp or "", metadata.name


def _message(migration: VirtualMachineMigration) -> str:
    """Return why a migration waits or failed; empty for one that succeeded."""
    status = migration.status
    if status.phase == "Succeeded":
        return ""
    return ": ".join(filter(None, (status.failure_reason, one_line(status.message))))
