"""The Kubernetes Events about a VM and its pods. Those of a status write are a pure function of before and after.

Guarantees: KubeVirt's reasons where it has one. An unchanged status causes no Event.
"""

from __future__ import annotations

from typing import Final

from controller.domain.objects import VMStatus
from controller.domain.vm import guest, status
from controller.domain.vm.status import Phase
from controller.kube.event import NORMAL, WARNING, Event
from controller.kube.meta import Condition

_WARNINGS: Final = (
    status.RESTART_REQUIRED,
    status.INVALID_CONSUMPTION,
    status.INVALID_SPEC,
    status.INVALID_BOOT_TIME,
    status.INVALID_START_NODE,
    guest.INVALID_DIRTY_RATE,
    guest.INVALID_WRITABLE_SET,
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
    old, new = _by_type(before), _by_type(after)
    ready, was_ready = new.get(status.READY), old.get(status.READY)
    if after.phase != before.phase:
        match after.phase:
            case Phase.RUNNING:
                found.append(Event(NORMAL, "Started", "Start", f"The virtual machine runs on {after.node_name}"))
            case Phase.STOPPED:
                found.append(Event(NORMAL, "Stopped", "Stop", "The virtual machine is stopped"))
            case Phase.FAILED if ready is not None:
                found.append(Event(WARNING, ready.reason, "Observe", ready.message))
    stuck = ready is not None and ready.reason == "Unschedulable"
    if stuck and ready is not None and (was_ready is None or was_ready.reason != "Unschedulable"):
        found.append(Event(WARNING, "Unschedulable", "Schedule", ready.message))
    if after.phase != Phase.FAILED:
        found += [Event(WARNING, kind, "Observe", new[kind].message) for kind in _WARNINGS if kind in new.keys() - old]
    return tuple(found)


def _by_type(of: VMStatus) -> dict[str, Condition]:
    """Return the first condition of each type."""
    return {found.type: found for found in reversed(of.conditions)}
