"""The backoff of a VM's next migration after migrations that failed after their claim.

Guarantees: pure. Only failures that took the VM down count, and only those of this VM, not of a namesake.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.objects import VirtualMachineMigration
from controller.kube import times

FIRST_BACKOFF: Final = 20.0
LONGEST_BACKOFF: Final = 3600.0
_DOUBLINGS: Final = 16
"""Doublings at most: enough to get from the first backoff to the longest."""


class Backoff(msgspec.Struct, frozen=True):
    """The backoff after some failures: `seconds` after the last of them, `left` seconds from now."""

    failures: int
    seconds: float
    until: datetime
    left: float


def backoff(history: tuple[VirtualMachineMigration, ...], vm_uid: str, now: datetime) -> Backoff | None:
    """Return the backoff of a VM's next migration: 20 s after the end of the last failure, doubling with each.

    None if there is none. Only failures after the claim count: a refusal before it does not stop the VM.
    `history` may contain migrations of namesakes.
    """
    ended = sorted(
        (migration for migration in history if migration.finished and migration.vm_uid == vm_uid),
        key=lambda done: done.status.end_timestamp or "",
    )
    failures = []
    for migration in reversed(ended):
        if migration.status.phase == MigrationPhase.SUCCEEDED and migration.spec.record_of is None:
            break
        if _failed_after_claim(migration):
            failures.append(migration)
    at = times.parse_timestamp(failures[0].status.end_timestamp) if failures else None
    if at is None or at > now + timedelta(seconds=LONGEST_BACKOFF):  # another client wrote a time in the future
        return None
    seconds = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(len(failures) - 1, _DOUBLINGS))
    until = at + timedelta(seconds=seconds)
    left = (until - now).total_seconds()
    return Backoff(len(failures), seconds, until, left) if left > 0 else None


def explain(vm: str, backoff: Backoff) -> str:
    """Return the message of a migration that waits for a backoff; it stays the same until the backoff ends."""
    one = backoff.failures == 1
    failed = "The last migration" if one else f"The last {backoff.failures} migrations"
    waits = f"the next waits {backoff.seconds:g} s after that, until {times.timestamp(backoff.until)}"
    return f"{failed} of VM {vm} failed after the VM was claimed; {waits}"


def _failed_after_claim(migration: VirtualMachineMigration) -> bool:
    """Whether a migration failed after it stopped its VM; a cancelled one and a record do not count."""
    found = migration.status
    claimed = found.start_timestamp is not None and found.failure_reason != Reason.CANCELLED
    return found.phase == MigrationPhase.FAILED and claimed and migration.spec.record_of is None
