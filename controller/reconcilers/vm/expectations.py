"""Expected creates: a VM's incarnation does not change while a create of its pod may still commit.

Guarantees: an expectation covers every create with an unknown outcome: of this process, of its predecessor, and of
another installation. It expires by itself, `SETTLED` seconds later, when the create has committed or never will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from controller.domain.objects import VirtualMachine
from controller.domain.vm import status
from controller.kube import times
from controller.kube.verbs import CREATE_DEADLINE
from controller.reconcilers.vm.memory import Known, Memory

SETTLED: Final = 2 * CREATE_DEADLINE
"""Seconds after which a create with an unknown outcome has committed or never will."""
CLOCK_SKEW: Final = timedelta(seconds=times.CLOCK_SKEW)


class CreateExpectations:
    """Expectations, stored in each VM's state. `now` is wall-clock time; `monotonic` is a clock in seconds."""

    def __init__(self, memory: Memory, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._memory = memory
        self._now = now
        self._monotonic = monotonic

    def take_over(self, vms: Iterable[VirtualMachine]) -> None:
        """Expect a create for each VM for which the previous process may have sent one just before it died."""
        horizon = self._horizon()
        for vm in vms:
            if _unsettled(vm, horizon):
                self.expect(self._memory[vm.metadata.key])

    def take_in(self, vm: VirtualMachine) -> None:
        """Expect a create for a VM that is new to the cache, if another installation may have sent one."""
        try:
            expected = self._may_be_created(vm)
        except Exception:
            # A malformed VM cannot be judged. The expectation is the safe side, and expires by itself.
            self.expect(self._memory[vm.metadata.key])
            raise
        if expected:
            self.expect(self._memory[vm.metadata.key])

    def _may_be_created(self, vm: VirtualMachine) -> bool:
        created = times.parse_timestamp(vm.metadata.creation_timestamp)
        new = created is None or created >= self._now() - CLOCK_SKEW
        return not (new and vm.status.incarnation is None) and _unsettled(vm, self._horizon())

    def expect(self, known: Known) -> None:
        """Expect a create from now on: the outcome of a request is unknown."""
        known.expected_until = self._monotonic() + SETTLED

    def remaining(self, known: Known) -> float:
        """Return the seconds for which a create for this VM may still commit; 0 if none is expected."""
        if known.expected_until is None:
            return 0.0
        remaining = known.expected_until - self._monotonic()
        if remaining <= 0:
            known.expected_until = None
        return max(0.0, remaining)

    def _horizon(self) -> datetime:
        """Return the time since which a create may still be unsettled."""
        return self._now() - timedelta(seconds=SETTLED) - CLOCK_SKEW


def _unsettled(vm: VirtualMachine, horizon: datetime) -> bool:
    """Whether a create of the VM's pod may be in flight: no pod is recorded, it has no node, or it changed lately."""
    recorded = vm.status
    moves = recorded.migration is not None and recorded.migration.is_live
    if moves or recorded.pod_uid is None or recorded.phase in (status.Phase.PENDING, status.Phase.SCHEDULING):
        return True
    history = recorded.conditions
    last = times.parse_timestamp(history[-1].last_transition_time) if history else None
    return last is None or last > horizon
