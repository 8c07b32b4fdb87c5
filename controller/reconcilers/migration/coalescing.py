"""Progress of migrations that is not written yet: when many move at once, the next write tells it as well.

Guarantees: the start and the end of a migration never wait, nor does what is wrong; a phase keeps the time at which it
was reached; what waits is written after the crowd's time (`BurstGate`), should nothing newer come. Bounded by the
migrations under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from controller.domain.migration.phases import GUESS, MigrationPhase
from controller.domain.migration.plan import Plan, WriteMigration
from controller.domain.objects import MigrationStatus, VirtualMachineMigration
from controller.engine.store import gone
from controller.observe.caches import Caches
from controller.reconcilers.burst import BurstGate

_ON_THE_WAY: Final = (MigrationPhase.SCHEDULING, MigrationPhase.STARTING)
_STARTED: Final = (MigrationPhase.TERMINATING, *_ON_THE_WAY)


class _Pending(msgspec.Struct, frozen=True):
    """What was not written, and the migration as it was when that was decided."""

    item: VirtualMachineMigration
    status: MigrationStatus


class ProgressCoalescer:
    """What waits, by the migration's UID."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._burst = BurstGate(monotonic)
        self._pending: dict[str, _Pending] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._changed, name="MigrationProgress")

    def known(self, item: VirtualMachineMigration) -> VirtualMachineMigration:
        """Return a migration with the progress that nobody else knows of yet."""
        pending = self._pending_of(item)
        return item if pending is None else msgspec.structs.replace(item, status=pending)

    def due(self, item: VirtualMachineMigration) -> MigrationStatus | None:
        """Return what has waited long enough."""
        pending = self._pending_of(item)
        return pending if pending is not None and self._burst.wait(item.metadata.uid) <= 0 else None

    def _pending_of(self, item: VirtualMachineMigration) -> MigrationStatus | None:
        """Return what waits of a migration, if that was decided on it as it is."""
        pending = self._pending.get(item.metadata.uid)
        return pending.status if pending is not None and pending.item is item else None

    def postpone(self, item: VirtualMachineMigration, plan: Plan) -> float:
        """Return the seconds for which a plan waits, remembering it; 0 if it is to be carried out now."""
        uid = item.metadata.uid
        match plan.actions:
            case (WriteMigration(status=wanted),) if _may_wait(item, wanted):
                wait = max(0.0, self._burst.wait(uid))
                if wait > 0:
                    self._pending[uid] = _Pending(item, wanted)
                return wait
            case (WriteMigration(status=wanted), *_) if not _goes_well(wanted):
                self._burst.forget(uid)  # it waits for a node, and nobody knows for how long
            case (WriteMigration(status=wanted), *_) if wanted.phase in _STARTED:
                self._burst.wait(uid)
        return 0.0

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        """Forget what was told; a migration that has ended says how fast they go, one that was deleted does not."""
        if (left := gone(old, new)) is not None:
            self._pending.pop(left.metadata.uid, None)
            self._burst.forget(left.metadata.uid)
        if new is not None:
            self._pending.pop(new.metadata.uid, None)
            if new.finished:
                self._burst.arrived(new.metadata.uid)


def _may_wait(item: VirtualMachineMigration, wanted: MigrationStatus) -> bool:
    """Whether a status tells no more than that a migration whose start was told goes well."""
    return wanted.phase in _ON_THE_WAY and item.status.phase in _STARTED and _goes_well(wanted)


def _goes_well(wanted: MigrationStatus) -> bool:
    """Whether there is nothing to say of the target."""
    return wanted.message in (None, GUESS)
