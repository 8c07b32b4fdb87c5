"""Coalesced status writes: during a burst, the status of a VM that is starting is merged into its next write.

Guarantees: the pod of a pending status counts as seen, so that its name is never used again. The VM is decided again
as soon as it, or its pod, shows anything but progress.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.domain.objects import VMStatus
from controller.domain.vm import status
from controller.domain.vm.plan import Plan
from controller.reconcilers.burst import BurstGate
from controller.reconcilers.vm.memory import Known, PendingStatus, Visit
from controller.reconcilers.vm.schedulers import Schedulers


class StatusCoalescer:
    """Decides which statuses stay pending while many VMs are starting. `monotonic` is a clock in seconds."""

    def __init__(self, schedulers: Schedulers, monotonic: Callable[[], float]) -> None:
        self._schedulers = schedulers
        self._burst = BurstGate(monotonic)

    def remaining(self, visit: Visit) -> float:
        """Return the seconds for which a pending status may wait: the VM is unchanged, its pod is still starting.

        A pod whose scheduler is silent is decided about as soon as that counts as silence.
        """
        pending, view = visit.known.pending, visit.view
        if pending is None or view.vm is not pending.vm or len(view.pods) != 1 or view.lost_nodes:
            return 0.0
        [pod] = view.pods
        if pod.metadata.uid != pending.status.pod_uid or not status.progressing(pod):
            return 0.0
        left = status.SCHEDULER_PATIENCE - self._schedulers.waited(pod) if status.unnoticed(pod) else float("inf")
        return min(self._burst.wait(visit.key), left)

    def wait(self, visit: Visit, plan: Plan) -> float:
        """Return the seconds for which the status of a plan may stay pending.

        A VM that migrates counts as starting from the end of its previous incarnation.
        """
        if plan.progressing:
            return self._burst.wait(visit.key)
        vm = visit.view.vm
        for pod in visit.view.pods:
            if pod.spec.node_name is None and status.unnoticed(pod):
                self._burst.forget(visit.key)  # it has not arrived: its scheduler is silent
                return 0.0
        if vm is not None and vm.status.migration is not None and vm.status.pod_uid is None:
            self._burst.wait(visit.key)
        else:
            self._burst.arrived(visit.key)
        return 0.0

    def postpone(self, visit: Visit, wanted: VMStatus) -> None:
        """Make a status pending instead of writing it now."""
        visit.known.pending = PendingStatus(visit.vm, wanted)

    def forget(self, key: str, known: Known) -> None:
        """Drop the state of a VM that no longer exists."""
        known.pending = None
        self._burst.forget(key)
