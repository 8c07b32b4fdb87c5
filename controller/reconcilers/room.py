"""What pods hold on each node, strangers' included: read live, and shared by all who ask.

Guarantees: no answer is older than `ROOM_AGE`, and none is from before the migration was there that asks, so that what
a person did before asking for a migration counts; the number of readings does not grow with who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from controller.domain import capacity
from controller.domain.migration import MigrationPhase
from controller.domain.objects import Pod, VirtualMachineMigration
from controller.engine.listing import everything
from controller.kube.resources import PODS
from controller.reconcilers.api import Api
from controller.reconcilers.sources import Caches

_log = structlog.get_logger(__name__)

ROOM_AGE: Final = 2.0
"""Seconds for which one reading is used."""


class Room:
    """The readings. Bounded by the migrations that are pending."""

    def __init__(self, client: Api, caches: Mapping[str | None, Caches], monotonic: Callable[[], float]) -> None:
        self._client = client
        self._namespaces = tuple(caches)
        self._monotonic = monotonic
        self._used: dict[str, capacity.Amount] = {}
        # Pods whose requests could not be read at the last reading, and why.
        self._unreadable: frozenset[tuple[str, str]] = frozenset()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        # Since when (monotonic) each pending migration is known, by UID.
        self._known_since: dict[str, float] = {}
        for cache in caches.values():
            cache.migrations.listen(self._migration_changed, name="Room")

    async def used_for(self, item: VirtualMachineMigration) -> Mapping[str, capacity.Amount]:
        """Return what is held on each node, for the preflight of one migration.

        Who asks while a reading is under way waits for it, and shares the next one if that is too old.
        """
        good_since = max(self._monotonic() - ROOM_AGE, self._known_since.get(item.metadata.uid, float("-inf")))
        async with self._reading:
            if self._read_at < good_since:
                began = self._monotonic()
                found = [await everything(self._client, PODS, namespace=namespace) for namespace in self._namespaces]
                self._used = self._add_up(pod for pods in found for pod in pods)
                self._read_at = began
        return self._used

    def _add_up(self, pods: Iterable[Pod]) -> dict[str, capacity.Amount]:
        unreadable: set[tuple[str, str]] = set()
        used = capacity.used_by_node(pods, lambda pod, why: unreadable.add((pod.metadata.key, why)))
        for key, why in sorted(unreadable - self._unreadable):
            _log.warning("a pod's requests cannot be read: room on its node is for the scheduler", pod=key, error=why)
        self._unreadable = frozenset(unreadable)
        return used

    def _migration_changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        if new is None or new.status.phase != MigrationPhase.PENDING:
            gone = new or old
            if gone is not None:
                self._known_since.pop(gone.metadata.uid, None)
        elif old is None:
            self._known_since[new.metadata.uid] = self._monotonic()
