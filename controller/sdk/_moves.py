"""Finished moves of VMs, as values for callers of the Python API."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.migration.phases import downtime
from controller.domain.objects import VirtualMachineMigration
from controller.operations import bare


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """A VM that has moved."""

    name: str | None
    """The VirtualMachineMigration; None for a bare pod, which has none."""
    source_node: str | None
    source_pod: str | None
    target_node: str | None
    target_pod: str | None
    downtime_seconds: float | None
    """Seconds from the moment the source stopped running to the moment the target ran; None if not known."""


def of_migration(migration: VirtualMachineMigration) -> MigrationResult:
    """Return the result of a migration that has succeeded."""
    status = migration.status
    return MigrationResult(
        name=migration.metadata.name,
        source_node=status.source_node,
        source_pod=status.source_pod,
        target_node=status.target_node,
        target_pod=status.target_pod,
        downtime_seconds=downtime(migration),
    )


def of_bare(move: bare.Move) -> MigrationResult:
    """Return the result of a bare pod's move."""
    return MigrationResult(
        name=None,
        source_node=move.source.spec.node_name,
        source_pod=move.source.metadata.name,
        target_node=move.target.spec.node_name,
        target_pod=move.target.metadata.name,
        downtime_seconds=move.downtime,
    )
