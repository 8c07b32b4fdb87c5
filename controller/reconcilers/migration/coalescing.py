"""Coalesced progress of migrations: during a burst, an intermediate phase is merged into the migration's next write.

Guarantees: the start, the end and any problem of a migration are written at once. A phase is written with the time at
which it was reached. Pending progress is written after the delay of `BurstGate`, if nothing newer comes. Bounded by the
migrations in progress.
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

_INTERMEDIATE: Final = (MigrationPhase.SCHEDULING, MigrationPhase.STARTING)
_STARTED: Final = (MigrationPhase.TERMINATING, *_INTERMEDIATE)


class _Pending(msgspec.Struct, frozen=True):
    """A status that is not written yet, and the migration that it was decided on."""

    item: VirtualMachineMigration
    status: MigrationStatus


class ProgressCoalescer:
    """Pending statuses, by the migration's UID. `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._burst = BurstGate(monotonic)
        self._pending: dict[str, _Pending] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._changed, name="MigrationProgress")

    def known(self, item: VirtualMachineMigration) -> VirtualMachineMigration:
        """Return a migration with its pending status, if it has one."""
        pending = self._pending_of(item)
        return item if pending is None else msgspec.structs.replace(item, status=pending)

    def due(self, item: VirtualMachineMigration) -> MigrationStatus | None:
        """Return the pending status if its delay is over, else None."""
        pending = self._pending_of(item)
        return pending if pending is not None and self._burst.wait(item.metadata.uid) <= 0 else None

    def _pending_of(self, item: VirtualMachineMigration) -> MigrationStatus | None:
        """Return the pending status, if it was decided on the migration as the cache shows it."""
        pending = self._pending.get(item.metadata.uid)
        return pending.status if pending is not None and pending.item is item else None

    def postpone(self, item: VirtualMachineMigration, plan: Plan) -> float:
        """Return the seconds for which a plan's status stays pending; 0 if the plan is to be carried out now."""
        uid = item.metadata.uid
        match plan.actions:
            case (WriteMigration(status=wanted),) if _may_wait(item, wanted):
                wait = max(0.0, self._burst.wait(uid))
                if wait > 0:
                    self._pending[uid] = _Pending(item, wanted)
                return wait
            case (WriteMigration(status=wanted), *_) if not _no_problem(wanted):
                self._burst.forget(uid)  # the target waits for a node for an unknown time, which would distort the pace
            case (WriteMigration(status=wanted), *_) if wanted.phase in _STARTED:
                self._burst.wait(uid)
        return 0.0

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        """Drop a pending status that is published or stale; the end of a migration counts as an arrival."""
        if (deleted := gone(old, new)) is not None:
            self._pending.pop(deleted.metadata.uid, None)
            self._burst.forget(deleted.metadata.uid)
        if new is not None:
            self._pending.pop(new.metadata.uid, None)
            if new.finished:
                self._burst.arrived(new.metadata.uid)


def _may_wait(item: VirtualMachineMigration, wanted: MigrationStatus) -> bool:
    """Whether a status reports nothing but the progress of a migration whose start is published."""
    return wanted.phase in _INTERMEDIATE and item.status.phase in _STARTED and _no_problem(wanted)


def _no_problem(wanted: MigrationStatus) -> bool:
    """Whether the status reports no problem of the target."""
    return wanted.message in (None, GUESS)
