"""A live migration's copying, as its status records it: enough to go on from there, by whoever reads it.

Guarantees: values only. What is copied and under which limits is fixed when copying begins; the checkpoint and its time
are written again now and then. The pace is not recorded: everybody computes it from the moves that share the links.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from controller.domain.copying.model import LARGEST, Checkpoint, Job, Limits, Workload
from controller.kube.meta import Value

_MOST_STEPS: Final = 10**6
_LEAST_COOLDOWN: Final = 1e-3
_MOST_JITTER: Final = 10.0
"""Beyond any guest; a float holds the factors that follow."""


class Copying(Value, frozen=True, omit_defaults=False):
    """What a move copies, under which limits, and how far it was at `timestamp` (RFC 3339, microseconds).

    `bandwidth`: bytes a second that the move may have at most; 0: no limit.
    """

    workload: Workload
    limits: Limits
    checkpoint: Checkpoint
    timestamp: str
    bandwidth: float = 0.0

    @property
    def cap(self) -> float:
        """The bandwidth that it may have at most, in bytes a second; infinity: no limit."""
        return self.bandwidth if self.bandwidth > 0 else math.inf

    @property
    def usable(self) -> bool:
        """Whether the figures can be those of a move; false for a status that another client has edited."""
        workload, limits, tuning = self.workload, self.limits, self.limits.tuning
        numbers = (
            *(workload.memory_in_use, workload.dirty_rate, workload.writable_set, workload.jitter, self.bandwidth),
            *(limits.completion_timeout, limits.progress_timeout, limits.max_downtime),
            *(() if tuning is None else (tuning.initial, tuning.ceiling)),
        )
        ramps = tuning is None or (1 <= tuning.steps <= _MOST_STEPS and _LEAST_COOLDOWN <= tuning.cooldown <= LARGEST)
        return ramps and all(0 <= number <= LARGEST for number in numbers) and workload.jitter <= _MOST_JITTER

    def job(self, seed: str) -> Job:
        """Return the job of the migration with this UID."""
        return Job(msgspec.structs.replace(self.workload, seed=seed), self.limits)
