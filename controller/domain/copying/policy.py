"""The installation's settings of live migrations: bandwidths, what a guest dirties, and KubeVirt's limits of a move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from controller.domain.copying import constants


class WritableSet(NamedTuple):
    """A guest's writable working set: a share of its memory in use, or bytes."""

    share: float | None = constants.WRITABLE_SHARE
    size: float = 0.0

    def of(self, memory_in_use: float) -> float:
        """Return the bytes of a guest; what it writes to lies in its memory in use."""
        return min(self.size if self.share is None else self.share * memory_in_use, memory_in_use)


DEFAULT_WRITABLE_SET: Final = WritableSet()


@dataclass(frozen=True, slots=True)
class CopyingPolicy:
    """What holds for a live migration whose VM and spec say nothing else: bytes a second and seconds, simulated ones.

    `bandwidth_per_migration`: 0 is no limit, KubeVirt's default. `bandwidth_per_node`: of each direction of a node.
    `completion_timeout_per_gib`, `progress_timeout`: 0 never comes, as in KubeVirt.
    """

    bandwidth_per_migration: float = 0.0
    bandwidth_per_node: float = constants.BANDWIDTH_PER_NODE
    dirty_rate: float = constants.DIRTY_RATE
    writable_set: WritableSet = DEFAULT_WRITABLE_SET
    dirty_rate_jitter: float = constants.DIRTY_RATE_JITTER
    allow_auto_converge: bool = False
    allow_post_copy: bool = False
    allow_workload_disruption: bool = False
    completion_timeout_per_gib: float = constants.COMPLETION_TIMEOUT_PER_GIB
    progress_timeout: float = constants.PROGRESS_TIMEOUT
    max_downtime: float = constants.MAX_DOWNTIME

    @property
    def capacity(self) -> float:
        """The bytes of memory a second that each direction of a node carries."""
        return constants.GOODPUT * self.bandwidth_per_node


DEFAULT_COPYING: Final = CopyingPolicy()
