"""`vmsim migrate`: ask for a VM to move, and watch it move.

Guarantees: a migration is created only for a VM that exists; while waiting nothing is polled, and no way out
(Ctrl-C, `--timeout`) stops the migration: it says how to.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from controller.cli import exits, session
from controller.cli.text import one_line
from controller.domain import names
from controller.domain.objects import VirtualMachineMigration
from controller.engine.store import Store
from controller.kube.client import Client
from controller.kube.errors import NotFoundError
from controller.kube.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.operations.watching import View, watching

UNNOTICED: Final = 10.0
"""Seconds without a word about a migration after which we wonder whether a controller runs."""
_TICK: Final = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for."""

    vm: str
    namespace: str | None = None
    to: str | None = None
    reason: str | None = None
    priority: str | None = None
    wait: bool = False
    timeout: float | None = None


def run(kubeconfig: str | None, request: Request) -> None:
    """Create the migration, wait if that is wanted, exit."""

    async def work(client: Client, namespace: str) -> int:
        return await _migrate(client, request.namespace or namespace, request)

    session.run(kubeconfig, work)


def manifest(
    *, vm: str, namespace: str, to: str | None, reason: str | None, priority: str | None, labels: Mapping[str, str]
) -> dict[str, Any]:
    """Return the migration to create; its name begins with the VM's, and the API server makes it unique."""
    wishes = {"targetNode": to, "reason": reason, "priority": priority}
    metadata: dict[str, Any] = {"generateName": f"{vm}-", "namespace": namespace}
    if labels:
        metadata["labels"] = dict(labels)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": metadata,
        "spec": {"vmName": vm, **{key: value for key, value in wishes.items() if value is not None}},
    }


def how_to_cancel(namespace: str, name: str) -> str:
    """Return the command that cancels a migration."""
    return f"""kubectl patch vmm -n {namespace} {name} --type=merge -p '{{"spec":{{"cancel":true}}}}'"""


def progress(migration: VirtualMachineMigration, waited: float) -> str:
    """Say in one line how far a migration has come, and what it waits for."""
    status = migration.status
    message = one_line(status.message)
    if status.phase == "Pending" and not message and waited >= UNNOTICED:
        message = "no controller has taken it up; does `vmsim controller` run, and watch this namespace?"
    where = {
        "Terminating": f"{status.source_pod or 'the source'} leaves {status.source_node or 'its node'}",
        "Scheduling": f"{status.target_pod or 'the target'} waits for a node",
        "Starting": f"{status.target_pod or 'the target'} starts on {status.target_node or 'its node'}",
    }.get(status.phase, "")
    return ": ".join(filter(None, (status.phase, message or where)))


def success(migration: VirtualMachineMigration) -> str:
    """Say in one line what moved where, and how long it was away."""
    status = migration.status
    away = f", downtime {status.downtime_seconds} s" if status.downtime_seconds is not None else ""
    return f"{migration.spec.vm_name}: {status.source_node or '?'} → {status.target_node or '?'}{away}"


def failure(migration: VirtualMachineMigration) -> str:
    """Say in one line why a migration failed."""
    status = migration.status
    return ": ".join(filter(None, (status.failure_reason or "Failed", one_line(status.message))))


async def _migrate(client: Client, namespace: str, request: Request) -> int:
    try:
        await client.get(VIRTUAL_MACHINES, request.vm, namespace=namespace)
    except NotFoundError as error:
        if not error.reason:
            raise
        raise exits.CommandError(
            f"there is no VM {request.vm} in namespace {namespace}: see kubectl get vm -A"
        ) from error
    body = manifest(
        vm=request.vm,
        namespace=namespace,
        to=request.to,
        reason=request.reason,
        priority=request.priority,
        labels={},
    )
    created = await client.create(MIGRATIONS, body, namespace=namespace, server_deadline=session.SERVER_DEADLINE)
    console = session.console()
    console.print(created.metadata.name)
    if not request.wait:
        return 0
    try:
        view = View()
        async with watching(client, MIGRATIONS, view, namespace=namespace) as store:
            last = await _wait(created, store, view, console, request.timeout)
    except asyncio.CancelledError:
        _tell(f"\nThe migration goes on. To cancel it while its VM is untouched:\n\n    {_cancel(created)}")
        raise
    if last.status.phase == "Succeeded":
        console.print(success(last))
        return 0
    raise exits.CommandError(f"{request.vm} did not move: {failure(last)}")


async def _wait(
    created: VirtualMachineMigration,
    store: Store[VirtualMachineMigration],
    view: View,
    console: Console,
    timeout: float | None,  # noqa: ASYNC109 - the way out differs from a cancellation's
) -> VirtualMachineMigration:
    """Show how the migration goes until it has ended; return its last state. Raises CommandError."""
    clock = asyncio.get_running_loop().time
    began = clock()
    ends = began + timeout if timeout is not None else float("inf")
    shown = ""
    with console.status("") as status:
        while True:
            migration = store.get(created.metadata.key)
            if migration is None or migration.metadata.uid != created.metadata.uid:
                raise exits.CommandError(f"migration {created.metadata.name} was deleted")
            if migration.finished:
                return migration
            words = progress(migration, clock() - began)
            if words != shown:
                shown = words
                if console.is_terminal:
                    status.update(words)
                else:
                    console.print(words)
            if clock() >= ends:
                raise exits.CommandError(
                    f"after {timeout:g} s the migration is {words}; it goes on. To cancel it: {_cancel(created)}"
                )
            await view.change(min(_TICK, ends - clock()))


def _cancel(migration: VirtualMachineMigration) -> str:
    return how_to_cancel(migration.metadata.namespace, migration.metadata.name)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
