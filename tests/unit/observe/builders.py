"""Migrations that copy, in round numbers: round one sends 1,000 bytes, and a link carries 100 a second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.domain.copying.constants import FIRST_ROUND_SHARE, GOODPUT
from controller.domain.copying.model import Job, Limits, Workload, start
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.copying.record import Copying
from controller.domain.objects import MigrationStatus, VirtualMachineMigration
from controller.kube.meta import ObjectMeta
from controller.kube.times import micro_timestamp

BEGAN = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
CAPACITY = 100.0
LIVE = CopyingPolicy(bandwidth_per_node=CAPACITY / GOODPUT)
"""The settings with this capacity."""
NEVER_CONVERGES: dict[str, Any] = {"dirty_rate": 1000.0, "writable_set": 500.0}


def move(
    uid: str = "a",
    nodes: tuple[str, str] = ("n1", "n2"),
    *,
    began: datetime = BEGAN,
    timestamp: str | None = None,
    bandwidth: float = 0.0,
    phase: str = "Running",
    timeout: float = 0.0,
    **guest: Any,
) -> VirtualMachineMigration:
    """A migration that began to copy then; by default its guest writes nothing."""
    idle = Workload(1000 / FIRST_ROUND_SHARE, dirty_rate=0.0, writable_set=0.0, jitter=0.0)
    workload = msgspec.structs.replace(idle, **guest)
    limits = Limits(timeout)
    at = timestamp if timestamp is not None else micro_timestamp(began)
    return VirtualMachineMigration(
        ObjectMeta(name=f"move-{uid}", namespace="default", uid=uid),
        status=MigrationStatus(
            phase=phase,
            source_node=nodes[0],
            target_node=nodes[1],
            copying=Copying(workload, limits, start(Job(workload, limits)), at, bandwidth),
        ),
    )
