"""A live migration's copying, as its status records it: enough to go on from there, by whoever reads it.

Guarantees: values only. What is copied and under which limits is fixed when copying begins; the checkpoint and its time
are written again now and then. The pace is not recorded: everybody computes it from the moves that share the links.
"""

from __future__ import annotations

import math

import msgspec

from controller.domain.copying.model import Checkpoint, Job, Limits, Workload
from controller.kube.meta import Value


class Copying(Value, frozen=True):
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

    def job(self, seed: str) -> Job:
        """Return the job of the migration with this UID."""
        return Job(msgspec.structs.replace(self.workload, seed=seed), self.limits)
