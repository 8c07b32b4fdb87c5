"""VMs of which a create may still take effect that nobody knows the outcome of: their lives must not move until then.

Guarantees: a hold ends by itself, once such a create has taken effect or never will, whether it was ours, that of the
process before us or that of another installation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from controller.domain.objects import VirtualMachine
from controller.domain.vm import status
from controller.kube import times
from controller.reconcilers.api import CREATE_DEADLINE
from controller.reconcilers.vm.memory import Known, Memory

SETTLED: Final = 2 * CREATE_DEADLINE
"""Seconds after which a create whose outcome is unknown has taken effect or never will."""
CLOCK_SKEW: Final = timedelta(seconds=5)
"""How far the cluster's clock and ours may differ without harm."""


class CreateExpectations:
    """Holds VMs in what is remembered of them, by two clocks: the cluster's, and a monotonic one (seconds)."""

    def __init__(self, memory: Memory, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._memory = memory
        self._now = now
        self._monotonic = monotonic

    def take_over(self, vms: Iterable[VirtualMachine]) -> None:
        """Hold the VMs for which a process that has just died may have sent a create moments before."""
        horizon = self._horizon()
        for vm in vms:
            if _unsettled(vm, horizon):
                self.expect(self._memory[vm.metadata.key])

    def take_in(self, vm: VirtualMachine) -> None:
        """Hold a VM that we have not seen before, if another installation may have sent a create for it."""
        try:
            held = self._may_be_created(vm)
        except Exception:
            self.expect(self._memory[vm.metadata.key])  # who cannot be judged is held: that is safe, and ends by itself
            raise
        if held:
            self.expect(self._memory[vm.metadata.key])

    def _may_be_created(self, vm: VirtualMachine) -> bool:
        created = times.parse_timestamp(vm.metadata.creation_timestamp)
        new = created is None or created >= self._now() - CLOCK_SKEW
        return not (new and vm.status.incarnation is None) and _unsettled(vm, self._horizon())

    def expect(self, known: Known) -> None:
        """Hold a VM from now on: the outcome of a create is unknown."""
        known.expected_until = self._monotonic() + SETTLED

    def remaining(self, known: Known) -> float:
        """Return the seconds during which a create for this VM may still take effect."""
        if known.expected_until is None:
            return 0.0
        remaining = known.expected_until - self._monotonic()
        if remaining <= 0:
            known.expected_until = None
        return max(0.0, remaining)

    def _horizon(self) -> datetime:
        """Return the time since which a create that was sent may not have settled yet."""
        return self._now() - timedelta(seconds=SETTLED) - CLOCK_SKEW


def _unsettled(vm: VirtualMachine, horizon: datetime) -> bool:
    """Whether somebody may be creating the VM's pod: it was not seen yet, has no node, or was on its way lately."""
    recorded = vm.status
    if recorded.pod_uid is None or recorded.phase in (status.Phase.PENDING, status.Phase.SCHEDULING):
        return True
    history = recorded.conditions
    last = times.parse_timestamp(history[-1].last_transition_time) if history else None
    return last is None or last > horizon
