"""Whose turn it is to migrate: the limits on how many VMs move at once, in all and away from each node.

Guarantees: a slot is taken before the claim and given back with its end, whatever the caches show meanwhile; among
those who wait, priority and then age decide, but nobody waits for a better-ranked one whose own node is at its
limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from controller.domain.objects import VirtualMachine

Rank = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many VMs may move at once; 0 means any number. The defaults are KubeVirt's."""

    cluster: int = 5
    outbound: int = 2


@dataclass(frozen=True, slots=True)
class _Waiting:
    rank: Rank
    node: str


class Turns:
    """Slots in use and VMs that wait for one, by VM key."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Where each VM that moves now came from.
        self._moving: dict[str, str] = {}
        self._from: Counter[str] = Counter()
        self._waiting: dict[str, _Waiting] = {}

    def claimed(self, key: str, node: str) -> None:
        """Take a slot: the VM is claimed by a migration."""
        self._waiting.pop(key, None)
        self._release(key)
        self._moving[key] = node
        self._from[node] += 1

    def ended(self, key: str) -> list[str]:
        """Give the slot back; return the keys whose turn may have come."""
        if not self._release(key):
            return []
        waiting = sorted(self._waiting, key=lambda other: self._waiting[other].rank)
        return [other for other in waiting if self._free(self._waiting[other].node)][: self._limits.cluster or None]

    def forget(self, key: str) -> None:
        """Wait no more."""
        self._waiting.pop(key, None)

    def observe(self, vms: Iterable[VirtualMachine]) -> None:
        """Take in the claims that exist when the process starts."""
        for vm in vms:
            if vm.status.migration is not None:
                self.claimed(vm.metadata.key, vm.status.migration.source_node)

    def ask(self, key: str, rank: Rank, node: str) -> str | None:
        """Return None if it is this VM's turn, which takes the slot; else why it waits.

        The slot is taken now, since others ask while the claim is on its way to the API server; a claim that fails
        gives it back with `ended`.
        """
        limits = self._limits
        self._waiting[key] = _Waiting(rank, node)
        if limits.outbound and self._from[node] >= limits.outbound:
            return f"{self._from[node]} VMs are leaving {node} already; at most {limits.outbound} may at once"
        if limits.cluster and len(self._moving) >= limits.cluster:
            return f"{len(self._moving)} migrations are under way; at most {limits.cluster} may be at once"
        if limits.cluster:
            room = limits.cluster - len(self._moving)
            ahead = sum(other.rank < rank and self._free(other.node) for other in self._waiting.values())
            if ahead >= room:
                return f"{ahead} migrations of higher priority or greater age go first"
        self.claimed(key, node)
        return None

    def _free(self, node: str) -> bool:
        return not self._limits.outbound or self._from[node] < self._limits.outbound

    def _release(self, key: str) -> bool:
        node = self._moving.pop(key, None)
        if node is None:
            return False
        self._from[node] -= 1
        return True
