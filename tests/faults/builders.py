"""Builders of objects and events as the witness sees them, for tests of the oracles."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Pod
from tests.faults.witness import Object, Seen


def seen(item: Object, **changes: Any) -> Seen:
    """Return one event."""
    return Seen(at=0.0, item=item, **changes)


def vm(*phases: str, uid: str = "vm-uid", name: str = "vm", **status: Any) -> VirtualMachine:
    """Return a VM that has passed these phases and is in the last one."""
    history = [{"type": f"Phase{phase}", "status": "True"} for phase in phases]
    ready = {"type": "Ready", "status": "True" if phases[-1:] == ("Running",) else "False"}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": uid},
            "status": {"phase": (phases or ("Pending",))[-1], "conditions": [ready, *history], **status},
        },
        VirtualMachine,
    )


def pod(uid: str, *, owner: str | None = "vm-uid", phase: str = "Running", **metadata: Any) -> Pod:
    """Return a launcher pod of the VM with this UID; without an owner if it is None."""
    reference = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": "vm", "uid": owner, "controller": True}
    return msgspec.convert(
        {
            "metadata": {
                "name": f"virt-launcher-{uid}",
                "namespace": "ns",
                "uid": uid,
                "ownerReferences": [reference] if owner is not None else [],
                **metadata,
            },
            "status": {"phase": phase},
        },
        Pod,
    )


def migration(phase: str, *, reason: str = "", name: str = "move") -> VirtualMachineMigration:
    """Return a migration in a phase, with this reason of its condition."""
    conditions = [{"type": "Completed", "status": "False", "reason": reason}]
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": f"{name}-uid"},
            "spec": {"vmName": "vm"},
            "status": {"phase": phase, "conditions": conditions},
        },
        VirtualMachineMigration,
    )
