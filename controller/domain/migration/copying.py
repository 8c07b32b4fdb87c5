"""What a live migration copies, and under which limits: of its VM, its own settings and the installation's.

Guarantees: pure. What is fixed when copying begins does not change any more: an edit of the VM or a restart with other
settings holds for the next migration.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from controller.domain.copying.model import Checkpoint, DowntimeTuning, Job, Limits, Workload, completion_timeout, start
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.copying.record import Copying
from controller.domain.copying.sharing import Transfer
from controller.domain.objects import LiveSettings, TuningSettings, VirtualMachine, VirtualMachineMigration
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import guest, launcher
from controller.kube import times
from controller.kube.kinds import Pod
from controller.kube.quantity import QuantityError, parse_quantity

T = TypeVar("T")

RECORDED_EVERY: Final = 30.0
"""Real seconds between two checkpoints of a migration's status."""
_LONGEST_ABSENCE: Final = timedelta(days=1)
"""Time without a controller in which a move copies at most: checkpoints are written twice a minute."""
_MS: Final = 1000


class Progress(msgspec.Struct, frozen=True):
    """How far a move's copying is now.

    `behind`: the checkpoint is of some time ago, since computing it takes more steps than one decision may cost.
    """

    checkpoint: Checkpoint
    behind: bool = False


def begin(
    migration: VirtualMachineMigration,
    vm: VirtualMachine,
    source: Pod | None,
    *,
    reference: ReferenceNode,
    policy: CopyingPolicy,
    now: datetime,
) -> Copying:
    """Return the record of a migration that begins to copy; `source` is the VM's pod. Raises RatioError.

    The memory that the VM has is what its pod was made with: the spec may have been edited since.
    """
    has = launcher.requested_by(source, vm)
    used = launcher.consumption(vm, has).shares
    found = guest.of_vm(vm, reference.memory_of(used.memory), policy)
    workload = Workload(found.memory_in_use, found.dirty_rate, found.writable_set, policy.dirty_rate_jitter)
    limits = _limits(migration.spec.live, reference.memory_of(has.memory), policy)
    job = Job(workload, limits)
    return Copying(workload, limits, start(job), times.micro_timestamp(now), _bandwidth(migration.spec.live, policy))


def transfer(migration: VirtualMachineMigration) -> Transfer | None:
    """Return what a migration takes of the nodes' links; None if it does not copy, or its record cannot be meant."""
    status = migration.status
    if status.copying is None or migration.finished or not status.copying.usable:
        return None
    return Transfer(migration.metadata.uid, status.source_node or "", status.target_node or "", status.copying.cap)


def since(record: Copying, now: datetime) -> datetime:
    """Return since when a record's checkpoint holds; a time that is malformed, later or too old counts as now."""
    taken = times.parse_timestamp(record.timestamp)
    return taken if taken is not None and now - _LONGEST_ABSENCE <= taken <= now else now


def recorded(copying: Copying, checkpoint: Checkpoint, now: datetime) -> Copying:
    """Return the record of copying that has come so far."""
    return msgspec.structs.replace(copying, checkpoint=checkpoint, timestamp=times.micro_timestamp(now))


def problem(live: LiveSettings) -> str | None:
    """Return why a migration's settings cannot be meant; None if they can. The schema refuses most of it."""
    return next(_problems(live), None)


def _problems(live: LiveSettings) -> Iterator[str]:
    if live.bandwidth is not None:
        try:
            if _own_bandwidth(live.bandwidth) < 0:
                yield f"spec.live.bandwidth is {live.bandwidth}: want bytes a second, such as 64Mi; 0 is no limit"
        except QuantityError as error:
            yield f"spec.live.bandwidth: {error}"
    numbers = {"completionTimeoutPerGiB": live.completion_timeout_per_gib, "maxDowntimeMs": live.max_downtime_ms}
    for field, value in numbers.items():
        if value is not None and value < 0:
            yield f"spec.live.{field} is {value}: want 0 or more"
    tuning = live.downtime_tuning
    if tuning is None:
        return
    if (
        min(tuning.steps, tuning.cooldown_seconds) < 1
        or min(tuning.initial_downtime_ms, tuning.ceiling_downtime_ms) < 0
    ):
        yield "spec.live.downtimeTuning: want steps and cooldownSeconds of 1 or more, and no negative downtime"


def _limits(live: LiveSettings, memory: Decimal, policy: CopyingPolicy) -> Limits:
    per_gib, downtime = live.completion_timeout_per_gib, live.max_downtime_ms
    return Limits(
        completion_timeout(float(memory), _either(per_gib, policy.completion_timeout_per_gib)),
        policy.progress_timeout,
        policy.max_downtime if downtime is None else downtime / _MS,
        _tuning(live.downtime_tuning),
        _either(live.allow_auto_converge, policy.allow_auto_converge),
        _either(live.allow_post_copy, policy.allow_post_copy),
        _either(live.allow_workload_disruption, policy.allow_workload_disruption),
    )


def _tuning(wanted: TuningSettings | None) -> DowntimeTuning | None:
    if wanted is None:
        return None
    initial, ceiling = wanted.initial_downtime_ms / _MS, wanted.ceiling_downtime_ms / _MS
    return DowntimeTuning(initial, ceiling, wanted.steps, wanted.cooldown_seconds)


def _either(own: T | None, default: T) -> T:
    return default if own is None else own


def _bandwidth(live: LiveSettings, policy: CopyingPolicy) -> float:
    return policy.bandwidth_per_migration if live.bandwidth is None else float(_own_bandwidth(live.bandwidth))


def _own_bandwidth(wanted: object) -> Decimal:
    """Parse a quantity, which may be written as a number. Raises QuantityError."""
    return parse_quantity(str(wanted) if isinstance(wanted, int) else wanted)
