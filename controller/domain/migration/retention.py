"""Retention of finished migrations.

Guarantees: pure. The newest five of an existing VM are retained, and none of a deleted VM. A migration of a VM that
never existed is retained for an hour, so that the user can read why it failed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from controller.domain.migration.phases import Reason
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube import times

KEPT: Final = 5
"""Finished migrations retained for each VM, as by KubeVirt."""
READABLE: Final = timedelta(hours=1)
"""For how long a migration of a VM that never existed is retained."""


class Expired(msgspec.Struct, frozen=True):
    """Migrations to delete: `surplus` at once, `orphaned` once a live read confirms that their VMs are deleted.

    `again`: seconds until the next one expires without an event; None if none does.
    """

    surplus: tuple[VirtualMachineMigration, ...] = ()
    orphaned: tuple[VirtualMachineMigration, ...] = ()
    again: float | None = None


def expired(migrations: tuple[VirtualMachineMigration, ...], vm: VirtualMachine | None, now: datetime) -> Expired:
    """Return the expired ones of the migrations that name a VM; `vm` is the cached VM, or None."""
    of_vm: list[VirtualMachineMigration] = []
    surplus: list[VirtualMachineMigration] = []
    orphaned: list[VirtualMachineMigration] = []
    waits: list[float] = []
    for item in migrations:
        if not item.finished:
            continue
        no_vm = item.vm_uid is None and item.status.failure_reason == Reason.VM_NOT_FOUND
        if no_vm or (vm is None and item.vm_uid is None):
            if (left := _readable_for(item, now)) > 0:
                waits.append(left)
            else:
                (surplus if no_vm else orphaned).append(item)
        elif vm is None or item.vm_uid not in (None, vm.metadata.uid):
            orphaned.append(item)
        else:
            of_vm.append(item)
    of_vm.sort(key=lambda done: (done.status.end_timestamp or "", done.metadata.name))
    return Expired((*of_vm[:-KEPT], *surplus), tuple(orphaned), min(waits, default=None))


def _readable_for(item: VirtualMachineMigration, now: datetime) -> float:
    """Return the seconds for which a migration without a known VM is retained from now on."""
    ended = times.parse_timestamp(item.status.end_timestamp)
    began = times.parse_timestamp(item.metadata.creation_timestamp)
    since = ended or began
    return (since - now + READABLE).total_seconds() if since is not None else 0.0
