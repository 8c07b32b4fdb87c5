"""How long a pod has waited for its scheduler's first report, while that scheduler reported about no other pod either.

Guarantees: measured on this process' own clock, so that neither a wrong clock nor the queue of a busy scheduler counts
as silence. Bounded by the pods that wait, and the names of schedulers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from controller.domain.vm import placement, status
from controller.kube.kinds import Pod

_NEVER: Final = float("-inf")


class Schedulers:
    """The schedulers' last reports, by name, and the pods that wait for a first one. `monotonic` is in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._reported: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow the pods of VMs."""
        if not self._since or old is None or old.metadata.uid not in self._since:
            return
        if new is not None and status.unnoticed(new):
            return
        del self._since[old.metadata.uid]
        if new is not None and (new.spec.node_name is not None or new.status.condition("PodScheduled") is not None):
            self._reported[placement.scheduler_of(new)] = self._monotonic()

    def waited(self, pod: Pod) -> float:
        """Return the seconds for which this pod's scheduler has been silent; the pod has no report of it yet."""
        now = self._monotonic()
        since = self._since.setdefault(pod.metadata.uid, now)
        return now - max(since, self._reported.get(placement.scheduler_of(pod), _NEVER))
