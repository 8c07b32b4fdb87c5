"""The status of a VM, as a value for callers of the Python API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.domain.objects import VirtualMachine
from controller.kube.times import parse_timestamp


@dataclass(frozen=True, slots=True)
class Condition:
    """One of a VM's conditions; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime | None


@dataclass(frozen=True, slots=True)
class VMStatus:
    """A VM's status at the moment it was read.

    The consumptions are the resource's own strings, exact decimals such as "0.15": calculate with
    `Decimal(status.cpu_consumption)`. Times are aware (UTC). A field that no controller has written is None, or empty.
    """

    phase: str
    """Pending, Scheduling, Scheduled, Running, Failed or Stopped."""
    node_name: str | None
    pod_name: str | None
    cpu_consumption: str | None
    memory_consumption: str | None
    conditions: tuple[Condition, ...]
    """Ready, then conditions that need attention, then the phases that the VM has passed through, oldest first."""
    created_at: datetime | None


def vm_status(vm: VirtualMachine) -> VMStatus:
    """Return the status of a VM."""
    status = vm.status
    return VMStatus(
        phase=status.phase,
        node_name=status.node_name,
        pod_name=status.pod_name,
        cpu_consumption=status.cpu_consumption,
        memory_consumption=status.memory_consumption,
        conditions=tuple(
            Condition(
                type=found.type,
                status=found.status,
                reason=found.reason,
                message=found.message,
                last_transition_time=parse_timestamp(found.last_transition_time),
            )
            for found in status.conditions
        ),
        created_at=parse_timestamp(status.created_at or vm.metadata.creation_timestamp),
    )
