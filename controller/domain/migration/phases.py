"""The vocabulary of a migration's status: its phases, and the reasons why it failed or waits."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from controller.domain.objects import MigrationStatus, VirtualMachineMigration

COMPLETED: Final = "Completed"
ROOM_FOUND: Final = "RoomFound"
"""The condition that says on what a claim's node depends: on a preemption, or on what only the scheduler can judge."""
GUESS: Final = "That a node has room is a guess: the pods of other namespaces are unknown"


class MigrationPhase(StrEnum):
    """The phases of a migration: `Recreate` has Terminating and Starting, `Live` has KubeVirt's."""

    PENDING = "Pending"
    TERMINATING = "Terminating"
    SCHEDULING = "Scheduling"
    STARTING = "Starting"
    SCHEDULED = "Scheduled"
    PREPARING_TARGET = "PreparingTarget"
    TARGET_READY = "TargetReady"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why a migration failed (`failureReason`), or what a pending one waits for (the condition's reason)."""

    CANCELLED = "Cancelled"
    VM_NOT_FOUND = "VMNotFound"
    VM_NOT_RUNNING = "VMNotRunning"
    ANOTHER_MIGRATION = "AnotherMigrationInProgress"
    TARGET_NOT_FOUND = "TargetNotFound"
    TARGET_IS_SOURCE = "TargetIsSource"
    TARGET_UNSCHEDULABLE = "TargetUnschedulable"
    NO_SUITABLE_NODE = "NoSuitableNode"
    NO_ROOM = "NoRoom"
    SOURCE_LOST = "SourceLost"
    TARGET_NODE_NOT_READY = "TargetNodeNotReady"
    SOURCE_NODE_NOT_READY = "SourceNodeNotReady"
    QUOTA_EXCEEDED = "QuotaExceeded"
    TARGET_REFUSED = "TargetRefused"
    VM_STOPPED = "VMStopped"
    VM_DELETED = "VMDeleted"
    TARGET_FAILED = "TargetFailed"
    TARGET_LOST = "TargetLost"
    ROLLED_BACK = "RolledBack"
    COMPLETION_TIMEOUT = "CompletionTimeout"
    PROGRESS_TIMEOUT = "ProgressTimeout"
    POST_COPY_LOST = "PostCopyLost"
    CLAIM_LOST = "ClaimLost"
    INVALID_RECORD = "InvalidRecord"
    INVALID_SPEC = "InvalidSpec"
    BACKOFF = "MigrationBackoff"
    LIMIT = "WaitingForTurn"


BOUNDED: Final = (Reason.NO_ROOM, Reason.SOURCE_NODE_NOT_READY, Reason.QUOTA_EXCEEDED, Reason.TARGET_REFUSED)
"""The reasons with a timeout: a migration waits at most `unschedulableTimeoutSeconds` for each of them."""


def refused_for(migration: VirtualMachineMigration) -> Reason | None:
    """Return the reason with a timeout for which a pending migration is refused; None if there is none."""
    if migration.status.phase != MigrationPhase.PENDING:
        return None
    recorded = next((found.reason for found in migration.status.conditions if found.type == COMPLETED), None)
    return next((reason for reason in BOUNDED if reason == recorded), None)


def room_found(status: MigrationStatus) -> str | None:
    """Return on what the room for the target depends; None if a node had enough free capacity, or none was sought."""
    return next((found.message for found in status.conditions if found.type == ROOM_FOUND), None)


def downtime(migration: VirtualMachineMigration) -> float | None:
    """Return the downtime of a VM that moved, in seconds; None if the status has none, or a malformed one."""
    text = migration.status.downtime_seconds
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
