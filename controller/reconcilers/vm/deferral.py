"""Statuses that wait: those of VMs on their way under a burst, which the next write will tell as well.

Guarantees: a pod whose status waits is remembered as seen, so that its name is never used again; a VM is decided anew
once it, or its pod, shows anything but progress. Bounded by the VMs whose status waits.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.vm import status
from controller.domain.vm.plan import Plan, View
from controller.reconcilers.crowd import Crowd


class _Waiting(msgspec.Struct, frozen=True):
    """What was not written, and the VM as it was when that was decided."""

    vm: VirtualMachine
    status: VMStatus


class Deferral:
    """The statuses that wait, by the VM's key."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._crowd = Crowd(monotonic)
        self._waiting: dict[str, _Waiting] = {}

    def life_seen(self, key: str) -> int | None:
        """Return the life whose pod was seen, if the status that tells of it waits."""
        waiting = self._waiting.get(key)
        return waiting.status.incarnation if waiting is not None else None

    def remaining(self, key: str, view: View) -> float:
        """Return for how long (seconds) there is nothing to decide: the same VM's same pod is still on its way."""
        waiting = self._waiting.get(key)
        if waiting is None or view.vm is not waiting.vm or len(view.pods) != 1 or view.lost_nodes:
            return 0.0
        [pod] = view.pods
        same = pod.metadata.uid == waiting.status.pod_uid
        return self._crowd.wait(key) if same and status.progressing(pod) else 0.0

    def wait(self, key: str, vm: VirtualMachine | None, plan: Plan) -> float:
        """Return the seconds for which a plan's status may wait.

        A VM that moves is on its way from the end of its life before on.
        """
        if plan.progressing:
            return self._crowd.wait(key)
        if vm is not None and vm.status.migration is not None and vm.status.pod_uid is None:
            self._crowd.wait(key)
        else:
            self._crowd.arrived(key)
        return 0.0

    def defer(self, key: str, vm: VirtualMachine, wanted: VMStatus) -> None:
        """Remember a status that is not written now."""
        self._waiting[key] = _Waiting(vm, wanted)

    def told(self, key: str) -> None:
        """Forget what waited: a write has told it."""
        self._waiting.pop(key, None)

    def forget(self, key: str) -> None:
        """Forget a VM that is gone."""
        self._waiting.pop(key, None)
        self._crowd.forget(key)
