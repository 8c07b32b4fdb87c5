"""VirtualMachine and VirtualMachineMigration, as frozen values.

Guarantees: only the fields named here are decoded. A value that violates the schema (a ratio that is a number) decodes,
too, and is checked later, so that one malformed object never fails a whole list. A field that does not decode gets its
default, and is named in the object's `unreadable`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from controller.domain import names
from controller.domain.copying.record import Copying
from controller.kube.meta import Condition, ObjectMeta, Value
from controller.kube.scheduling import Affinity, Toleration

_PRIORITIES: Final = {"system-critical": 0, "user-triggered": 1, "system-maintenance": 2}


def _spec_problem(unreadable: tuple[str, ...]) -> str | None:
    return "; ".join(found for found in unreadable if found.startswith("spec")) or None


class VMResources(Value, frozen=True):
    """Shares of the reference node. The schema says strings; anything decodes."""

    cpu: Any = None
    memory: Any = None


class VMSpec(Value, frozen=True):
    """The desired state: size, whether it runs, and Kubernetes' own fields that decide the pod's node."""

    resources: VMResources = VMResources()
    running: bool = True
    scheduler_name: str = ""
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class_name: str = ""


class StartFailure(Value, frozen=True):
    """KubeVirt's VM.status.startFailure: why and until when a failed start waits."""

    consecutive_fail_count: int = 0
    last_failed_pod_uid: str = msgspec.field(default="", name="lastFailedPodUID")
    retry_after_timestamp: str | None = None


class Strategy(StrEnum):
    """How a VM moves: Recreate deletes the source pod before the target's create, Live after the hand-over."""

    RECREATE = "Recreate"
    LIVE = "Live"


class GuestMode(StrEnum):
    """What is unusual about the guest of a VM that moves live."""

    PAUSED = "Paused"
    """It is stopped on the source until all of its memory is copied."""
    POST_COPY = "PostCopy"
    """It runs on the target, and a part of its memory is still on the source: it needs both pods."""
    COPIED = "Copied"
    """It runs on the target again, where all of its memory is by now."""


class Claim(Value, frozen=True):
    """A migration's claim on its VM, in the VM's status: which incarnation ends, and the constraints of the next.

    `rollback` lifts the constraints of the next incarnation: the target got no node. `reserved_node`: the node on which
    capacity is reserved for it; the scheduler may choose another. `by_preemption`: pods of lower priority have it now.
    `target_incarnation`: the number of the target pod; None is the number after the source's. Under `Live` alone:
    `aborting`, why the move is being undone (`Reason: message`), `barred_by_name`, that the source node has no hostname
    label by which anti-affinity could bar it, and `mode`, what is unusual about the guest (`GuestMode`).
    Without a strategy it is `Recreate`.
    """

    name: str = ""
    uid: str = ""
    source_node: str = ""
    source_incarnation: int = 0
    target_node: str | None = None
    added_node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    reserved_node: str | None = None
    by_preemption: bool = False
    rollback: bool = False
    strategy: str | None = None
    target_incarnation: int | None = None
    aborting: str | None = None
    barred_by_name: bool = False
    mode: str | None = None

    @property
    def target(self) -> int:
        """The number of the target pod."""
        return self.source_incarnation + 1 if self.target_incarnation is None else self.target_incarnation

    @property
    def is_live(self) -> bool:
        """Whether the VM moves live: the target pod is beside the source pod."""
        return self.strategy == Strategy.LIVE


class HandOver(Value, frozen=True):
    """The last live move that handed the VM over: the migration's UID, and when (RFC 3339, microseconds).

    `downtime_seconds`: for how long the guest was stopped.
    """

    uid: str = ""
    timestamp: str = ""
    downtime_seconds: str = ""


class VMStatus(Value, frozen=True):
    """The status that the controller publishes. `incarnation` identifies the VM's current pod.

    `last_incarnation`: the highest number ever given out, also to a pod that never came to be; None until the first
    live move, and then the highest number is `incarnation`. `previous_incarnation`: the number before this one, if it
    is not the one below it. `last_hand_over` outlives its claim, so that a migration that was not told of it succeeds.
    """

    phase: str = "Pending"
    observed_generation: int | None = None
    node_name: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = msgspec.field(default=None, name="podUID")
    incarnation: int | None = None
    last_incarnation: int | None = None
    previous_incarnation: int | None = None
    last_hand_over: HandOver | None = None
    cpu_consumption: str | None = None
    memory_consumption: str | None = None
    created_at: str | None = None
    start_failure: StartFailure | None = None
    migration: Claim | None = None
    conditions: tuple[Condition, ...] = ()

    @property
    def next_incarnation(self) -> int:
        """The number of the next pod: one that was never given out."""
        return max(self.incarnation or 0, self.last_incarnation or 0) + 1


class VirtualMachine(Value, frozen=True):
    """A VirtualMachine."""

    metadata: ObjectMeta
    spec: VMSpec = VMSpec()
    status: VMStatus = VMStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def spec_problem(self) -> str | None:
        """Why the spec cannot be used; None if every field of it decoded."""
        return _spec_problem(self.unreadable)

    @property
    def controller_class(self) -> str | None:
        """The class of its controller; None: the one without a class."""
        return self.metadata.labels.get(names.CONTROLLER_CLASS)


class TuningSettings(Value, frozen=True):
    """KubeVirt's downtimeTuning: the downtime limit rises from the initial one to the ceiling, in equal steps."""

    initial_downtime_ms: int = 150
    ceiling_downtime_ms: int = 900
    steps: int = 7
    cooldown_seconds: int = 10


class LiveSettings(Value, frozen=True):
    """What a live migration sets for itself; what is None is as the installation says.

    `bandwidth`: a quantity in bytes a second, decoded as whatever it is; 0: no limit.
    """

    bandwidth: Any = None
    allow_auto_converge: bool | None = None
    allow_post_copy: bool | None = None
    allow_workload_disruption: bool | None = None
    completion_timeout_per_gib: int | None = msgspec.field(default=None, name="completionTimeoutPerGiB")
    max_downtime_ms: int | None = None
    downtime_tuning: TuningSettings | None = None


class MigrationSpec(Value, frozen=True):
    """The VM to move, and its target. Times are in seconds."""

    vm_name: str = ""
    strategy: str | None = None
    target_node: str | None = None
    added_node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    priority: str | None = None
    reason: str = ""
    unschedulable_timeout_seconds: int = 300
    completion_timeout_seconds: int = 900
    live: LiveSettings = LiveSettings()
    cancel: bool = False
    record_of: str | None = None


class PhaseTime(Value, frozen=True):
    """When a phase began (RFC 3339, microseconds)."""

    phase: str
    phase_transition_timestamp: str


class MigrationStatus(Value, frozen=True):
    """The progress of a migration. `vm_uid`: the VM that it is about, as opposed to a namesake.

    `copying`: what a live one copies, and how far it was when that was written; None before it copies.
    """

    phase: str = "Pending"
    observed_generation: int | None = None
    strategy: str | None = None
    vm_uid: str | None = msgspec.field(default=None, name="vmUID")
    phase_transition_timestamps: tuple[PhaseTime, ...] = ()
    source_node: str | None = None
    source_pod: str | None = None
    target_node: str | None = None
    target_pod: str | None = None
    start_timestamp: str | None = None
    end_timestamp: str | None = None
    downtime_seconds: str | None = None
    copying: Copying | None = None
    failure_reason: str | None = None
    message: str | None = None
    conditions: tuple[Condition, ...] = ()


class VirtualMachineMigration(Value, frozen=True):
    """A VirtualMachineMigration."""

    metadata: ObjectMeta
    spec: MigrationSpec = MigrationSpec()
    status: MigrationStatus = MigrationStatus()
    unreadable: tuple[str, ...] = ()
    """Fields that did not decode, each with the reason; never on the wire."""

    @property
    def spec_problem(self) -> str | None:
        """Why the spec cannot be used; None if every field of it decoded."""
        return _spec_problem(self.unreadable)

    @property
    def vm_key(self) -> str:
        """`namespace/name` of the VM that moves."""
        return f"{self.metadata.namespace}/{self.spec.vm_name}"

    @property
    def vm_uid(self) -> str | None:
        """UID of the VM that it is about: a namesake may have the name by now. None until it is recorded."""
        recorded = self.metadata.annotations.get(names.SOURCE_VM) if self.spec.record_of is not None else None
        return self.status.vm_uid or recorded

    @property
    def finished(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def rank(self) -> tuple[int, str, str]:
        """Sort key of migrations: by priority, then age, then name."""
        priority = _PRIORITIES.get(self.spec.priority or "", len(_PRIORITIES))
        return priority, self.metadata.creation_timestamp or "", self.metadata.key
