"""`vmsim migrations`: prints the table of migrations, each with why it waits or failed, or how far it has copied."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from controller.cli import session
from controller.cli.connection import Connection
from controller.cli.copying import words
from controller.cli.tables import Column, Grid
from controller.cli.text import age, cell
from controller.domain.objects import Strategy, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.domain.settings import DEFAULTS, PublishedSettings
from controller.engine.listing import everything
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import settings
from controller.operations.copying import Estimate, beside, copies, estimates
from controller.operations.text import one_line

_HEADERS: Final = ("NAME", "PHASE", "VM", "STRATEGY", "SOURCE", "TARGET", "REASON", "DOWNTIME", "AGE", "MESSAGE")
_SENTENCES: Final = ("REASON", "MESSAGE")
NONE: Final[Mapping[str, Estimate]] = MappingProxyType({})
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
            published, shared = await _shared(client, scope, found, everywhere=everywhere)
            now = datetime.now(UTC)
            grid = table(found, namespaces=everywhere, now=now, estimated=estimates(shared, published, now))
            session.console().print(grid, soft_wrap=False)
        else:
            sys.stderr.write(f"No migrations in {f'namespace {where}' if where else 'any namespace'}.\n")
        return 0

    session.run(connection, work, manager=managers.MIGRATE)


async def _shared(
    client: Client, scope: session.Scope, found: list[VirtualMachineMigration], *, everywhere: bool
) -> tuple[PublishedSettings, Sequence[VirtualMachineMigration]]:
    """Return the controller's settings, and all migrations; nothing is read unless one of those found copies."""
    if not any(map(copies, found)):
        return DEFAULTS, ()
    reading = await settings.read(client, settings.places(scope.namespace, scope.home))
    for note in reading.notes:
        sys.stderr.write(f"note: {note}\n")
    return reading.settings, found if everywhere else await beside(client, found)


def table(
    migrations: Iterable[VirtualMachineMigration],
    *,
    namespaces: bool,
    now: datetime,
    estimated: Mapping[str, Estimate] = NONE,
) -> Grid:
    """Return kubectl's columns, the strategy, and why each migration waits or failed, or how far it has copied.

    The oldest is first in each namespace. `estimated` are those of the migrations that copy, by UID.
    """
    headers = (*(("NAMESPACE",) if namespaces else ()), *_HEADERS)
    drawn = Grid(*(Column(header, folds=header in _SENTENCES) for header in headers))
    for migration in sorted(migrations, key=_order):
        metadata, spec, status = migration.metadata, migration.spec, migration.status
        drawn.add(
            *((cell(metadata.namespace),) if namespaces else ()),
            cell(metadata.name),
            cell(status.phase, _COLOURS.get(status.phase, "")),
            cell(spec.vm_name),
            cell(_strategy(migration)),
            cell(status.source_node),
            cell(status.target_node),
            cell(spec.reason),
            cell(status.downtime_seconds),
            cell(age(metadata.creation_timestamp, now)),
            cell(_message(migration, estimated.get(metadata.uid), now)),
        )
    return drawn


def _order(migration: VirtualMachineMigration) -> tuple[str, str, str]:
    metadata = migration.metadata
    return metadata.namespace, metadata.creation_timestamp or "", metadata.name


def _strategy(migration: VirtualMachineMigration) -> str | None:
    """Return how a VM moves; before that, how it was asked to, if it was. A status names only Live."""
    status = migration.status
    return status.strategy or (Strategy.RECREATE if status.start_timestamp is not None else migration.spec.strategy)


def _message(migration: VirtualMachineMigration, estimate: Estimate | None, now: datetime) -> str:
    """Return why a migration waits or failed, or how far it has copied; empty for one that succeeded."""
    status = migration.status
    if status.phase == "Succeeded":
        return ""
    why = ": ".join(filter(None, (status.failure_reason, one_line(status.message))))
    return "; ".join(filter(None, (why, words(estimate, now) if estimate is not None else "")))
