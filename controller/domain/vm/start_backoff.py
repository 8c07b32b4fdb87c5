"""KubeVirt's backoff of a VM whose pod failed: 10·n² seconds plus up to half of it, at most five minutes.

Guarantees: pure. A failure that was counted already is returned unchanged.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from controller.domain.objects import StartFailure, VirtualMachine
from controller.kube.kinds import Pod
from controller.kube.times import timestamp

LONGEST: Final = 300.0
"""Seconds that KubeVirt waits at most before it tries a failed start again."""
_MOST_FAILURES: Final = 100
"""Failures in a row beyond which the count is cut off: the backoff is at its longest long before."""


def start_failure(vm: VirtualMachine, pod: Pod, *, now: datetime, jitter: float) -> StartFailure:
    """Return KubeVirt's start backoff after a failed pod: 10·n² s plus up to half of it, at most 300 s.

    `jitter` is in [0, 1). A failure already counted (same pod) is returned unchanged.
    """
    before = vm.status.start_failure
    if before is not None and before.last_failed_pod_uid == pod.metadata.uid:
        return before
    count = max(0, before.consecutive_fail_count if before is not None else 0) + 1
    delay = 10.0 * min(count, _MOST_FAILURES) ** 2
    delay = min(LONGEST, delay * (1 + jitter / 2))
    return StartFailure(
        consecutive_fail_count=count,
        last_failed_pod_uid=pod.metadata.uid,
        retry_after_timestamp=timestamp(datetime.fromtimestamp(math.ceil(now.timestamp() + delay), UTC)),
    )
