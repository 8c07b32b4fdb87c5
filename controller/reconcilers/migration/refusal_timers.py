"""Timers of refusals: since when each pending migration is refused, by reason. Its timeout counts from there.

Guarantees: neither the time spent waiting for a slot nor the time refused for another reason counts. A new process
counts from its own first reconcile. Bounded by the migrations that are pending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from controller.domain.migration import phases
from controller.domain.objects import VirtualMachineMigration
from controller.observe.caches import Caches
from controller.reconcilers.sources import no_longer_pending

_NEVER: Final[Mapping[str, datetime]] = MappingProxyType({})


class RefusalTimers:
    """When each reason with a timeout was first seen, by the migration's UID. `now` is wall-clock time."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._since: dict[str, dict[str, datetime]] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._changed, name="Patience")

    def since(self, item: VirtualMachineMigration) -> Mapping[str, datetime]:
        """Return when each reason for which a pending migration was refused was first seen in its status."""
        uid = item.metadata.uid
        if (reason := phases.refused_for(item)) is not None:
            self._since.setdefault(uid, {}).setdefault(reason, self._now())
        return self._since.get(uid, _NEVER)

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        """Drop the timers of a migration that is no longer Pending."""
        for item in no_longer_pending(old, new):
            self._since.pop(item.metadata.uid, None)
