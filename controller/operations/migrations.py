"""Migrations: create one, follow it to its end, and describe its progress in one line.

Guarantees: `create` creates a migration only for a VM that exists; following a migration watches and never polls; a
caller that stops following a migration does not cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from controller.domain import names
from controller.domain.migration import phases
from controller.domain.objects import VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.kube.errors import KubeError
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations import copying, vms
from controller.operations.api import Api
from controller.operations.copying import Copies, Estimate
from controller.operations.errors import (
    MigrationFailedError,
    NoControllerError,
    NotListedError,
    TimedOutError,
    may_be_done,
    translated,
)
from controller.operations.text import one_line
from controller.operations.waiting import UNNOTICED
from controller.operations.watching import ChangeSignal, watching

_TICK: Final = 1.0


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """A migration to create. With `to` None the scheduler chooses the node, with `strategy` None the controller how."""

    vm: str
    namespace: str
    to: str | None = None
    reason: str | None = None
    priority: str | None = None
    strategy: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    name: str | None = None
    """The name of the migration; None: the API server generates one from the name of the VM."""


def manifest(request: MigrationRequest) -> dict[str, Any]:
    """Return the body of the migration to create."""
    optional = {
        "targetNode": request.to,
        "reason": request.reason,
        "priority": request.priority,
        "strategy": request.strategy,
    }
    named = {"generateName": f"{request.vm}-"} if request.name is None else {"name": request.name}
    metadata: dict[str, Any] = {**named, "namespace": request.namespace}
    if request.labels:
        metadata["labels"] = dict(request.labels)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": metadata,
        "spec": {"vmName": request.vm, **{key: value for key, value in optional.items() if value is not None}},
    }


def how_to_cancel(namespace: str, name: str) -> str:
    """Return the command that cancels a migration."""
    return f"""kubectl patch vmm -n {namespace} {name} --type=merge -p '{{"spec":{{"cancel":true}}}}'"""


def progress(migration: VirtualMachineMigration, waited: float) -> str:
    """Return one line: the phase of a migration and the reason why it waits; the caller has waited `waited` seconds."""
    status = migration.status
    message = one_line(status.message)
    if unnoticed(migration, waited):
        message = "no controller has taken it up; does `vmsim controller` run, and watch this namespace?"
    where = {
        "Terminating": f"{status.source_pod or 'the source'} terminates on {status.source_node or 'its node'}",
        "Scheduling": f"{status.target_pod or 'the target'} waits for a node",
        "Scheduled": f"{status.target_pod or 'the target'} starts on {status.target_node or 'its node'}",
        "Running": f"memory is copied to {status.target_node or 'the target'}",
        "Starting": f"{status.target_pod or 'the target'} starts on {status.target_node or 'its node'}",
    }.get(status.phase, "")
    note = one_line(phases.room_found(status)) if status.target_pod is None else ""
    return ": ".join(filter(None, (status.phase, message or where))) + (f" ({note})" if note else "")


def unnoticed(migration: VirtualMachineMigration, waited: float) -> bool:
    """Whether a migration is Pending without a message after `UNNOTICED` seconds: probably no controller runs."""
    status = migration.status
    return status.phase == "Pending" and not one_line(status.message) and waited >= UNNOTICED


def success(migration: VirtualMachineMigration) -> str:
    """Return one line: the VM, its source and target node, and its downtime."""
    status = migration.status
    away = f", downtime {status.downtime_seconds} s" if status.downtime_seconds is not None else ""
    return f"{migration.spec.vm_name}: {status.source_node or '?'} → {status.target_node or '?'}{away}"


def failure(migration: VirtualMachineMigration) -> str:
    """Return one line: the reason and message of a failed migration."""
    status = migration.status
    return ": ".join(filter(None, (status.failure_reason or "Failed", one_line(status.message))))


def doubt(namespace: str) -> str:
    """Return the advice for a migration whose create has an unknown outcome."""
    return (
        f"whether the migration was created is not known: look at kubectl get vmm -n {namespace} before you ask again"
    )


async def create(client: Api, request: MigrationRequest) -> VirtualMachineMigration:
    """Create a migration for a VM that is read first. Raises NoSuchVMError, and the errors of `ask`."""
    await vms.get(client, request.namespace, request.vm)
    return await ask(client, request)


async def ask(client: Api, request: MigrationRequest) -> VirtualMachineMigration:
    """Create a migration for a VM that the caller knows to exist.

    Raises CRDOutdatedError, or the KubeError of a refusal. If the outcome is unknown, raises a SimulatorError that says
    so: another create could make a second migration.
    """
    try:
        return await send(client, request)
    except KubeError as error:
        if may_be_done(error):
            raise translated(error, doubt=doubt(request.namespace)) from error
        raise


async def send(client: Api, request: MigrationRequest) -> VirtualMachineMigration:
    """Send the create of a migration. Raises CRDOutdatedError, or the KubeError of the request."""
    with vms.no_field_lost(names.MIGRATION_KIND):
        return await client.create(
            MIGRATIONS,
            manifest(request),
            namespace=request.namespace,
            server_deadline=CREATE_DEADLINE,
            strict=request.strategy is not None,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What a migration does, in one line, and how far it is if it copies."""

    line: str
    estimate: Estimate | None = None


async def follow(
    client: Api,
    created: VirtualMachineMigration,
    *,
    timeout: float | None,  # noqa: ASYNC109 - the way out differs from a cancellation's
    report: Callable[[Step], None] | None = None,
    copies: Callable[[], AbstractAsyncContextManager[Copies]] | None = None,
) -> VirtualMachineMigration:
    """Follow a migration until it has succeeded; return its last state.

    `report` gets its progress whenever that changes; while it copies, every second. Then `copies` is entered, which
    says how far it is; without, or if that cannot be read, only the phases are reported. A `timeout` of None waits
    until the controller ends the migration.

    Raises MigrationFailedError when the migration failed or was deleted; TimedOutError when it has not ended within
    `timeout` seconds; and, without `report`, NoControllerError when no controller has acted on it within 10 s. With
    `report` the progress says so and the user decides. The last two errors do not end the migration.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    ends = began + timeout if timeout is not None else float("inf")
    namespace, name = created.metadata.namespace, created.metadata.name
    signal = ChangeSignal()
    last: Step | None = None
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(watching(client, MIGRATIONS, signal.touch, namespace=namespace))
        view = _View(stack, copies)
        while True:
            migration = store.get(created.metadata.key)
            if migration is None or migration.metadata.uid != created.metadata.uid:
                raise MigrationFailedError(f"migration {name} was deleted", reason="Deleted")
            if migration.finished:
                return _succeeded(migration)
            waited = clock() - began
            words = progress(migration, waited)
            if report is not None and (step := Step(words, await view.estimate(migration))) != last:
                last = step
                report(step)
            goes_on = f"it goes on. To cancel it: {how_to_cancel(namespace, name)}"
            if report is None and unnoticed(migration, waited):
                raise NoControllerError(f"the migration is {words} Once one runs, {goes_on}")
            if clock() >= ends:
                raise TimedOutError(f"after {timeout:g} s the migration is {words}; {goes_on}")
            await signal.change(min(_TICK, ends - clock()))


class _View:
    """Says how far a migration is, from the moment on at which it copies."""

    def __init__(self, stack: AsyncExitStack, copies: Callable[[], AbstractAsyncContextManager[Copies]] | None) -> None:
        self._stack = stack
        self._enter = copies
        self._copies: Copies | None = None

    async def estimate(self, migration: VirtualMachineMigration) -> Estimate | None:
        """Return how far it is now; None if it does not copy, or if that is not known."""
        if not copying.copies(migration):
            return None
        if self._enter is not None:
            enter, self._enter = self._enter, None
            try:
                self._copies = await self._stack.enter_async_context(enter())
            except (KubeError, NotListedError):  # the wait itself goes on, and meets what concerns it, too
                return None
        return self._copies.estimate(migration) if self._copies is not None else None


def _succeeded(migration: VirtualMachineMigration) -> VirtualMachineMigration:
    if migration.status.phase != "Succeeded":
        raise MigrationFailedError(
            f"{migration.spec.vm_name} did not move: {failure(migration)}",
            reason=migration.status.failure_reason or "Failed",
        )
    return migration
