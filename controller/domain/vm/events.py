"""The Kubernetes Events about a VM and its pods. Those of a status write are a pure function of before and after.

Guarantees: KubeVirt's reasons where it has one. An unchanged status causes no Event.
"""

from __future__ import annotations

from typing import Final

from controller.domain.objects import VMStatus
from controller.domain.vm import status
from controller.domain.vm.status import Phase
from controller.kube.event import NORMAL, WARNING, Event
from controller.kube.meta import Condition

_WARNINGS: Final = (
    status.RESTART_REQUIRED,
    status.INVALID_CONSUMPTION,
    status.INVALID_SPEC,
    status.INVALID_BOOT_TIME,
    status.ANNOTATIONS_LEFT_OUT,
)
"""The conditions that cause an Event when they begin."""


def created(pod: str) -> Event:
    """Return the Event for a created launcher pod."""
    return Event(NORMAL, "SuccessfulCreate", "CreatePod", f"Created virtual machine pod {pod}")


def create_refused(pod: str, why: str) -> Event:
    """Return the Event for a launcher pod that cannot be created."""
    return Event(WARNING, "FailedCreate", "CreatePod", f"Cannot create virtual machine pod {pod}: {why}")


def deleted(pod: str, why: str) -> Event:
    """Return the Event for a deleted launcher pod."""
    return Event(NORMAL, "SuccessfulDelete", "DeletePod", f"Deleted virtual machine pod {pod}: {why}")


def transitions(before: VMStatus, after: VMStatus) -> tuple[Event, ...]:
    """Return the Events of a status write: for phases that matter to a user, and for warnings that begin."""
    found: list[Event] = []
    ready = _condition(after, status.READY)
    if after.phase != before.phase:
        match after.phase:
            case Phase.RUNNING:
                found.append(Event(NORMAL, "Started", "Start", f"The virtual machine runs on {after.node_name}"))
            case Phase.STOPPED:
                found.append(Event(NORMAL, "Stopped", "Stop", "The virtual machine is stopped"))
            case Phase.FAILED if ready is not None:
                found.append(Event(WARNING, ready.reason, "Observe", ready.message))
    if ready is not None and ready.reason == "Unschedulable" and _reason(before, status.READY) != "Unschedulable":
        found.append(Event(WARNING, "Unschedulable", "Schedule", ready.message))
    for kind in _WARNINGS:
        condition = _condition(after, kind)
        if condition is not None and _condition(before, kind) is None and after.phase != Phase.FAILED:
            found.append(Event(WARNING, kind, "Observe", condition.message))
    return tuple(found)


def _condition(of: VMStatus, kind: str) -> Condition | None:
    return next((condition for condition in of.conditions if condition.type == kind), None)


def _reason(of: VMStatus, kind: str) -> str | None:
    condition = _condition(of, kind)
    return condition.reason if condition is not None else None
