"""Cancelling the migrations of a VM: `spec.cancel`, and what comes of it.

Guarantees: nothing is asked of a migration that has handed its VM over, since that would change nothing; a namesake of
a migration or of a VM is never meant; the result is what the controller made of the request, watched and never polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.errors import ConflictError, NotFoundError
from controller.operations import migrations, vms
from controller.operations.api import Api
from controller.operations.errors import HandedOverError, NotMigratingError, TimedOutError
from controller.operations.watching import ChangeSignal, watching

PATIENCE: Final = 10.0
"""Seconds in which the controller has to end a migration that is cancelled."""


async def of_vm(client: Api, namespace: str, vm: str) -> tuple[VirtualMachineMigration, ...]:
    """Cancel the migrations of a VM that have not ended; return those that were cancelled, as they ended.

    Raises NoSuchVMError; NotMigratingError if there is none; and as `cancel` does.
    """
    found = await vms.get(client, namespace, vm)
    in_progress = [
        item
        for item in await everything(client, MIGRATIONS, namespace=namespace)
        if item.spec.vm_name == vm and not item.finished and item.spec.record_of is None
    ]
    if not in_progress:
        raise NotMigratingError(f"VM {vm} has no migration in progress: see vmsim migrations -n {namespace}")
    return await cancel(client, found, in_progress)


async def one(client: Api, asked: VirtualMachineMigration) -> tuple[VirtualMachineMigration, ...]:
    """Cancel a migration; return it as it ended, nothing if it was deleted. Raises NoSuchVMError, and as `cancel`."""
    vm = await vms.get(client, asked.metadata.namespace, asked.spec.vm_name)
    return await cancel(client, vm, (asked,))


async def cancel(
    client: Api, vm: VirtualMachine, asked: Sequence[VirtualMachineMigration]
) -> tuple[VirtualMachineMigration, ...]:
    """Cancel migrations of a VM as it was read before; return those that were cancelled, as they ended.

    Raises HandedOverError if the VM was handed over before they could be; TimedOutError if the controller has not
    ended them within 10 s: it does later. A migration that was deleted meanwhile is left out.
    """
    open_to_it = [migration for migration in asked if not handed_over(migration, vm)]
    if not open_to_it:
        raise HandedOverError(
            f"migration {asked[0].metadata.name} has handed VM {vm.metadata.name} over to "
            f"{vm.status.node_name} already: cancelling it changes nothing"
        )
    for migration in open_to_it:
        guarded = {"metadata": {"uid": migration.metadata.uid}, "spec": {"cancel": True}}
        try:
            await client.merge_patch(
                MIGRATIONS, migration.metadata.name, guarded, namespace=migration.metadata.namespace
            )
        except (NotFoundError, ConflictError):  # deleted, which cancels it, too
            continue
    return await _ended(client, vm.metadata.namespace, open_to_it)


def handed_over(migration: VirtualMachineMigration, vm: VirtualMachine) -> bool:
    """Whether a live migration has handed its VM over, and only cleans up."""
    over, claim = vm.status.last_hand_over, vm.status.migration
    if over is not None and over.uid == migration.metadata.uid:
        return True
    claimed = claim is not None and claim.is_live and claim.uid == migration.metadata.uid
    return claimed and claim is not None and vm.status.incarnation == claim.target


async def _ended(
    client: Api, namespace: str, asked: Sequence[VirtualMachineMigration]
) -> tuple[VirtualMachineMigration, ...]:
    clock = asyncio.get_running_loop().time
    ends = clock() + PATIENCE
    signal = ChangeSignal()
    async with watching(client, MIGRATIONS, signal.touch, namespace=namespace) as store:
        while True:
            now = [found for migration in asked if (found := _shown(migration, store)) is not None]
            for migration in now:
                if migration.status.phase == "Succeeded":
                    raise HandedOverError(
                        f"migration {migration.metadata.name} could not be cancelled any more: it has moved "
                        f"{migrations.success(migration)}"
                    )
            goes_on = next((migration for migration in now if not migration.finished), None)
            if goes_on is None:
                return tuple(now)
            if clock() >= ends:
                raise TimedOutError(
                    f"after {PATIENCE:g} s migration {goes_on.metadata.name} is "
                    f"{migrations.progress(goes_on, PATIENCE)}; it is cancelled as soon as its controller can"
                )
            await signal.change(ends - clock())


def _shown(migration: VirtualMachineMigration, store: Store[VirtualMachineMigration]) -> VirtualMachineMigration | None:
    found = store.get(migration.metadata.key)
    return found if found is not None and found.metadata.uid == migration.metadata.uid else None
