"""Statuses that wait: those of VMs on their way under a burst, which the next write will tell as well.

Guarantees: a pod whose status waits is remembered as seen, so that its name is never used again; a VM is decided anew
once it, or its pod, shows anything but progress.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.domain.objects import VMStatus
from controller.domain.vm import status
from controller.domain.vm.plan import Plan
from controller.reconcilers.burst import BurstGate
from controller.reconcilers.vm.memory import Known, PendingStatus, Visit


class StatusCoalescer:
    """Puts statuses off while many VMs are on their way."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._burst = BurstGate(monotonic)

    def remaining(self, visit: Visit) -> float:
        """Return for how long (seconds) there is nothing to decide: the same VM's same pod is still on its way."""
        pending, view = visit.known.pending, visit.view
        if pending is None or view.vm is not pending.vm or len(view.pods) != 1 or view.lost_nodes:
            return 0.0
        [pod] = view.pods
        same = pod.metadata.uid == pending.status.pod_uid
        return self._burst.wait(visit.key) if same and status.progressing(pod) else 0.0

    def wait(self, visit: Visit, plan: Plan) -> float:
        """Return the seconds for which a plan's status may wait.

        A VM that moves is on its way from the end of its life before on.
        """
        if plan.progressing:
            return self._burst.wait(visit.key)
        vm = visit.view.vm
        if vm is not None and vm.status.migration is not None and vm.status.pod_uid is None:
            self._burst.wait(visit.key)
        else:
            self._burst.arrived(visit.key)
        return 0.0

    def postpone(self, visit: Visit, wanted: VMStatus) -> None:
        """Remember a status that is not written now."""
        visit.known.pending = PendingStatus(visit.vm, wanted)

    def forget(self, key: str, known: Known) -> None:
        """Forget a VM that is gone."""
        known.pending = None
        self._burst.forget(key)
