"""The migration state machine: delete, then create again, one step a reconcile, each step safe to repeat.

It never touches a pod. It claims the VM (`status.migration`, a guarded write, with which the claimed life ends as soon
as that may be), and the VM reconciler, the only one that acts on pods, deletes that life's pod and makes the next one
under the claim's constraints. So the two can never both act on a pod. Guarantees:

- nothing is claimed before preflight said yes; a migration that fails before its claim leaves the VM untouched;
- at most one migration has a VM, since the claim is one field of the VM;
- every claim ends: with the target running, with a failure, or, when the migration object is gone, by itself;
- a VM is never left without a pod because a migration failed: an unplaced target is rolled back to a pod that may
  go anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from controller.domain import names, nodes, ownership
from controller.domain.objects import Claim, MigrationStatus, PhaseTime, VirtualMachine, VirtualMachineMigration
from controller.domain.vm import records, status
from controller.kube import times
from controller.kube.kinds import Node, Pod
from controller.kube.meta import Condition

COMPLETED: Final = "Completed"
GUESS: Final = "That a node has room is a guess: the pods of other namespaces are unknown"
FIRST_BACKOFF: Final = 20.0
LONGEST_BACKOFF: Final = 3600.0
_DOUBLINGS: Final = 16
"""More of them than from the first backoff to the longest."""
_NODE_PATIENCE: Final = 10.0
"""Seconds after which a node that was lost or silent is looked at again: its return is no news of the VM."""
_UNREMARKABLE: Final = 5.0
"""Seconds that a source may take to go without a word."""
_PRIORITIES: Final = {"system-critical": 0, "user-triggered": 1, "system-maintenance": 2}


class MigrationPhase(StrEnum):
    """How far a migration has come."""

    PENDING = "Pending"
    TERMINATING = "Terminating"
    SCHEDULING = "Scheduling"
    STARTING = "Starting"
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
    SOURCE_NODE_NOT_READY = "SourceNodeNotReady"
    QUOTA_EXCEEDED = "QuotaExceeded"
    TARGET_REFUSED = "TargetRefused"
    VM_STOPPED = "VMStopped"
    VM_DELETED = "VMDeleted"
    TARGET_FAILED = "TargetFailed"
    TARGET_LOST = "TargetLost"
    ROLLED_BACK = "RolledBack"
    COMPLETION_TIMEOUT = "CompletionTimeout"
    CLAIM_LOST = "ClaimLost"
    INVALID_RECORD = "InvalidRecord"
    INVALID_SPEC = "InvalidSpec"
    BACKOFF = "MigrationBackoff"
    LIMIT = "WaitingForTurn"


_BOUNDED: Final = (Reason.NO_ROOM, Reason.SOURCE_NODE_NOT_READY, Reason.QUOTA_EXCEEDED, Reason.TARGET_REFUSED)
"""What a migration waits for no longer than its `unschedulableTimeoutSeconds`, each for itself."""


def rank(migration: VirtualMachineMigration) -> tuple[int, str, str]:
    """Who goes first: by priority, then age, then name."""
    metadata = migration.metadata
    priority = _PRIORITIES.get(migration.spec.priority or "", len(_PRIORITIES))
    return priority, metadata.creation_timestamp or "", metadata.key


def refused_for(migration: VirtualMachineMigration) -> Reason | None:
    """Return the reason for which a pending migration was refused, if it waits for that no longer than its time."""
    if migration.status.phase != MigrationPhase.PENDING:
        return None
    told = next((found.reason for found in migration.status.conditions if found.type == COMPLETED), None)
    return next((reason for reason in _BOUNDED if reason == told), None)


class Refused(msgspec.Struct, frozen=True):
    """Preflight says no. `for_good` ones fail at once, the others wait until the timeout."""

    reason: Reason
    message: str
    for_good: bool


class Backoff(msgspec.Struct, frozen=True):
    """What the last failures make a VM's next migration wait: `seconds` after the last of them, `left` from now."""

    failures: int
    seconds: float
    until: datetime
    left: float


class Question(StrEnum):
    """What has to be asked before a claim, in this order."""

    SLOT = "slot"
    NODE = "node"
    DRY_RUN = "dry run"


class Ask(msgspec.Struct, frozen=True):
    """What has to be known before the migration can be decided: whether the VM may be claimed like this."""

    question: Question
    claim: Claim


class Answers(msgspec.Struct, frozen=True):
    """What was asked so far: is there a slot, and which node has room; would the API server make the target pod.

    A `node` of "" means that nobody may know the nodes. `refused`: the last answer was no. `later`: there is none yet;
    so many seconds until there may be one.
    """

    slot: bool = False
    node: str | None = None
    accepted: bool = False
    refused: Refused | None = None
    later: float = 0.0


class MigrationView(msgspec.Struct, frozen=True):
    """What the caches show of one VM and one of its migrations.

    `answers` are those to what `decide_migration` asked. `backoff` is what earlier failures make it wait. `source_node`
    is the node that the VM leaves; None if there is no such node, or nobody may know. `guessed`: nobody may know all
    pods on the nodes. `refused_since`: when each reason for which it was refused was first seen.
    """

    migration: VirtualMachineMigration
    vm: VirtualMachine | None
    pods: tuple[Pod, ...]
    now: datetime
    answers: Answers = Answers()
    backoff: Backoff | None = None
    source_node: Node | None = None
    guessed: bool = False
    refused_since: Mapping[str, datetime] = MappingProxyType({})


class WriteMigration(msgspec.Struct, frozen=True):
    """Replace the migration's status if it is still as the cache shows it."""

    status: MigrationStatus


class ClaimVM(msgspec.Struct, frozen=True):
    """Put a claim on the VM, change it, or (None) take it away; guarded by the VM's version."""

    claim: Claim | None


class ConfirmVMGone(msgspec.Struct, frozen=True):
    """Go on only if a live read, too, shows no VM of this UID."""

    uid: str


class ConfirmClaimLost(msgspec.Struct, frozen=True):
    """Go on only if a live read of the VM, too, shows no claim of this migration."""


MigrationAction: TypeAlias = WriteMigration | ClaimVM | ConfirmVMGone | ConfirmClaimLost


class MigrationPlan(msgspec.Struct, frozen=True):
    """Actions in order, and when to look again although nothing happened (seconds)."""

    actions: tuple[MigrationAction, ...] = ()
    requeue_after: float | None = None


def backoff(history: tuple[VirtualMachineMigration, ...], vm_uid: str, now: datetime) -> Backoff | None:
    """Return how long the next migration of a VM waits after failures: 20 s, doubling, from the end of the last.

    Only failures that touched the VM count: one that was refused before its claim cost nothing. `history` may tell of
    other VMs that had its name, too.
    """
    ended = sorted(
        (migration for migration in history if migration.finished and migration.vm_uid == vm_uid),
        key=lambda done: done.status.end_timestamp or "",
    )
    failures = []
    for migration in reversed(ended):
        if migration.status.phase == MigrationPhase.SUCCEEDED and migration.spec.record_of is None:
            break
        if _failed_on_the_way(migration):
            failures.append(migration)
    at = times.parse_timestamp(failures[0].status.end_timestamp) if failures else None
    if at is None or at > now + timedelta(seconds=LONGEST_BACKOFF):  # the latter is no end of ours
        return None
    seconds = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(len(failures) - 1, _DOUBLINGS))
    until = at + timedelta(seconds=seconds)
    left = (until - now).total_seconds()
    return Backoff(len(failures), seconds, until, left) if left > 0 else None


def downtime(migration: VirtualMachineMigration) -> float | None:
    """Return for how many seconds a VM that moved was down; None if the status says none, or no such number."""
    text = migration.status.downtime_seconds
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def _failed_on_the_way(migration: VirtualMachineMigration) -> bool:
    """Whether it took its VM down in vain: a cancelled one and a record are nobody's failure."""
    found = migration.status
    touched = found.start_timestamp is not None and found.failure_reason != Reason.CANCELLED
    return found.phase == MigrationPhase.FAILED and touched and migration.spec.record_of is None


def _explain(vm: str, backoff: Backoff) -> str:
    """Say what a migration waits for that comes after failures; the same words until it has waited."""
    one = backoff.failures == 1
    failed = "The last migration" if one else f"The last {backoff.failures} migrations"
    waits = f"the next waits {backoff.seconds:g} s after that, until {times.timestamp(backoff.until)}"
    return f"{failed} of VM {vm} failed on the way; {waits}"


def release_orphan(vm: VirtualMachine, pods: tuple[Pod, ...], *, settled: bool = False) -> MigrationPlan:
    """End a claim whose migration object is gone: the VM comes back, bound by nothing.

    A target that has no node yet may wait for one that never comes, so it is rolled back first. `settled`: that was so
    long ago that no target bound by the claim can come about any more, so that the VM needs the claim no longer.
    """
    claim = vm.status.migration
    if claim is None:
        return MigrationPlan()
    target = _pod_of(_own(vm, pods), claim.source_incarnation + 1)
    wanted = vm.spec.running and vm.metadata.deletion_timestamp is None
    if not wanted or (target is None and _is_spoiled(vm)):
        return MigrationPlan((ClaimVM(None),))
    unplaced = vm.status.incarnation == claim.source_incarnation + 1 and (
        target is None or target.spec.node_name is None
    )
    if unplaced and not claim.rollback:
        return MigrationPlan((ClaimVM(msgspec.structs.replace(claim, rollback=True)),))
    if unplaced and not (settled and target is None):
        return MigrationPlan()
    return MigrationPlan((ClaimVM(None),))


def decide_migration(view: MigrationView) -> MigrationPlan | Ask:
    """Decide the next step of one migration, or say what has to be asked first."""
    return _Move(view).plan()


def _refusal(
    migration: VirtualMachineMigration, vm: VirtualMachine, pods: tuple[Pod, ...], source: Node | None
) -> Refused | None:
    """Return why the VM cannot be taken from its node, whatever other nodes and limits say; None if it can."""
    name = vm.metadata.name
    if not _movable(vm):
        message = f"VM {name} is {vm.status.phase}, and only a Running VM moves"
        return Refused(Reason.VM_NOT_RUNNING, message, for_good=True)
    if migration.spec.target_node == vm.status.node_name:
        message = f"VM {name} is on node {vm.status.node_name} already"
        return Refused(Reason.TARGET_IS_SOURCE, message, for_good=True)
    pod = next((pod for pod in pods if pod.metadata.uid == vm.status.pod_uid), None)
    evicted = records.disruption(pod) if pod is not None else None
    if pod is not None and (evicted is not None or pod.terminating):
        going = f"is on its way out ({evicted})" if evicted is not None else "is being deleted"
        message = f"Pod {pod.metadata.name} of VM {name} {going} already"
        return Refused(Reason.VM_NOT_RUNNING, message, for_good=True)
    if (silence := nodes.silence(source)) is not None:
        until = nodes.revival(vm.status.node_name or "")
        why = f"VM {name} cannot be taken down: {silence}, so nobody would finish its pod's deletion until {until}"
        return Refused(Reason.SOURCE_NODE_NOT_READY, why, for_good=False)
    return None


def _movable(vm: VirtualMachine) -> bool:
    return (
        vm.spec.running
        and vm.metadata.deletion_timestamp is None
        and vm.status.phase == status.Phase.RUNNING
        and vm.status.incarnation is not None
        and vm.status.node_name is not None
    )


def _is_spoiled(vm: VirtualMachine) -> bool:
    """Whether nothing can be made of the VM's spec, so that no pod is to come."""
    return any(found.type == status.INVALID_SPEC for found in vm.status.conditions)


def _own(vm: VirtualMachine | None, pods: tuple[Pod, ...]) -> tuple[Pod, ...]:
    """Return the VM's own pods: one that had its name before may have left some, and of the same lives."""
    return tuple(pod for pod in pods if ownership.belongs_to(pod, vm)) if vm is not None else ()


def _pod_of(pods: tuple[Pod, ...], incarnation: int) -> Pod | None:
    return next((pod for pod in pods if ownership.incarnation(pod) == incarnation), None)


def _create_refusal(vm: VirtualMachine) -> str | None:
    """Return why no pod of the VM can be made, as its status tells; None if it tells nothing of the kind."""
    ready = status.ready(vm)
    return ready.message if ready is not None and ready.reason == status.FAILED_CREATE else None


def _has_moved(vm: VirtualMachine, claim: Claim, target: Pod | None) -> bool:
    """Whether the target runs, and was bound by the migration: one that may go anywhere is no move."""
    reached = vm.status.incarnation == claim.source_incarnation + 1 and not claim.rollback
    return reached and target is not None and target.status.phase == "Running"


class _Move:
    """One decision about one migration. Lives for one call."""

    def __init__(self, view: MigrationView) -> None:
        self.view = view
        self.migration = view.migration
        self.before = view.migration.status
        self.vm = view.vm
        self.pods = _own(view.vm, view.pods)
        # With microseconds: downtime is shorter than pods' whole seconds can tell.
        self.now = times.micro_timestamp(view.now)

    def plan(self) -> MigrationPlan | Ask:
        claim = self.vm.status.migration if self.vm is not None else None
        mine = claim is not None and claim.uid == self.migration.metadata.uid
        if self.migration.finished:
            noted = self._note_generation()
            return MigrationPlan((*noted, ClaimVM(None))) if mine else MigrationPlan(noted)
        if self.vm is not None and self.migration.vm_uid not in (None, self.vm.metadata.uid):
            return self._renewed(self.vm)
        if self.migration.spec.record_of is not None:
            return self._tell()
        return self._carry_on(claim, mine=mine)

    def _note_generation(self) -> tuple[WriteMigration, ...]:
        """Tell of what has ended that a later edit of its spec was seen, or whoever asks would wait for that.

        A status without any generation is an older release's, which nobody takes for stale.
        """
        newest = self.migration.metadata.generation
        if (self.before.observed_generation or newest) == newest:
            return ()
        return (WriteMigration(msgspec.structs.replace(self.before, observed_generation=newest)),)

    def _carry_on(self, claim: Claim | None, *, mine: bool) -> MigrationPlan | Ask:
        if self.vm is not None and claim is not None and mine:
            return self._follow(self.vm, claim)
        if self.before.phase == MigrationPhase.PENDING:
            return self._pending(claim)
        if self.vm is None:
            return self._fail(Reason.VM_DELETED, "The VM was deleted during its migration")
        lost = self._fail(Reason.CLAIM_LOST, "The VM's status does not name this migration any more")
        return MigrationPlan((ConfirmClaimLost(), *lost.actions))

    def _renewed(self, vm: VirtualMachine) -> MigrationPlan:
        """End what was begun for a VM that had this one's name before: it is gone, and this is another."""
        gone = f"The VM was deleted; VM {vm.metadata.name} was made anew and is another"
        failed = self._fail(Reason.VM_DELETED, gone)
        return MigrationPlan((ConfirmVMGone(self.migration.vm_uid or ""), *failed.actions))

    # --- records: tell what somebody else ordered ---------------------------------------------------------

    def _tell(self) -> MigrationPlan:
        """Follow a VM whose pod was evicted; never act."""
        incarnation = records.source_incarnation(self.migration)
        if incarnation is None:
            return self._fail(Reason.INVALID_RECORD, "spec.recordOf is for the controller's own records of evictions")
        annotations = self.migration.metadata.annotations
        if self.vm is None or self.vm.metadata.deletion_timestamp is not None:
            return self._fail(Reason.VM_DELETED, "The VM was deleted after its pod was evicted")
        if not self.vm.spec.running:
            return self._fail(Reason.VM_STOPPED, "The VM was stopped after its pod was evicted")
        claim = Claim(source_node=annotations.get(names.SOURCE_NODE, ""), source_incarnation=incarnation)
        now = self.vm.status.incarnation or 0
        evicted = self.migration.spec.record_of
        source = next((pod for pod in self.pods if pod.metadata.uid == evicted), None)
        # A pod that went before the VM's status told of it has its successor in the same life, and a count that
        # somebody took away begins anew: what is not the evicted pod came after it.
        target = _pod_of(self.pods, now)
        if target is None or target is source or target.done:
            phase = MigrationPhase.TERMINATING if now <= incarnation else MigrationPhase.SCHEDULING
            held = self._held(source) if source is not None else None
            progress = self._progress(phase, claim, source, None, held)
            if source is not None and held is None:
                progress = MigrationPlan(progress.actions, requeue_after=_UNREMARKABLE)
            return self._unless_spared(progress, source) if source is not None else progress
        if target.status.phase == "Running":
            return MigrationPlan(self._succeed(claim, source, target).actions[:1])
        phase = MigrationPhase.STARTING if target.spec.node_name is not None else MigrationPhase.SCHEDULING
        return self._progress(phase, claim, source, target)

    def _unless_spared(self, progress: MigrationPlan, source: Pod) -> MigrationPlan:
        """Follow a pod on its way out, unless its node came back first, or its eviction was taken back."""
        if records.taken_back(source):
            return self._fail(Reason.CANCELLED, "The eviction was taken back before its pod was deleted")
        if self.migration.spec.reason != records.NODE_LOST or source.terminating:
            return progress
        if self.view.source_node is not None:
            return self._fail(Reason.CANCELLED, "The node came back before its pod was removed")
        return MigrationPlan(progress.actions, requeue_after=_NODE_PATIENCE)

    # --- before the claim: the VM is untouched -----------------------------------------------------------

    def _pending(self, claim: Claim | None) -> MigrationPlan | Ask:  # noqa: PLR0911 - one way out per answer
        name = self.migration.spec.vm_name
        if self.migration.spec.cancel:
            return self._fail(Reason.CANCELLED, "Cancelled before its source was deleted")
        if self.migration.spec_problem is not None:
            return self._fail(Reason.INVALID_SPEC, self.migration.spec_problem)
        if self.vm is None and self.before.vm_uid is not None:
            return self._fail(Reason.VM_DELETED, f"VM {name} was deleted before it moved")
        if self.vm is None:
            return self._fail(Reason.VM_NOT_FOUND, f"There is no VM {name}")
        if claim is not None:
            return self._fail(Reason.ANOTHER_MIGRATION, f"VM {name} is being moved by migration {claim.name}")
        if (refusal := _refusal(self.migration, self.vm, self.pods, self.view.source_node)) is not None:
            return self._refuse(refusal)
        if (backoff := self.view.backoff) is not None:
            return self._wait(Reason.BACKOFF, _explain(name, backoff), backoff.left)
        return self._ask(self.view.answers, self._claim(self.vm))

    def _ask(self, answers: Answers, wanted: Claim) -> MigrationPlan | Ask:
        """Ask what has to be known before the claim, the cheapest first."""
        if answers.refused is not None:
            return self._refuse(answers.refused)
        if answers.later > 0:
            return MigrationPlan(requeue_after=answers.later)
        if not answers.slot:
            return Ask(Question.SLOT, wanted)
        if answers.node is None:
            return Ask(Question.NODE, wanted)
        if not answers.accepted:
            return Ask(Question.DRY_RUN, wanted)
        return MigrationPlan((ClaimVM(msgspec.structs.replace(wanted, reserved_node=answers.node or None)),))

    def _refuse(self, refused: Refused) -> MigrationPlan:
        if refused.for_good:
            return self._fail(refused.reason, refused.message)
        refused_for = self.view.now - self.view.refused_since.get(refused.reason, self.view.now)
        left = self.migration.spec.unschedulable_timeout_seconds - refused_for.total_seconds()
        if refused.reason in _BOUNDED and left <= 0:
            return self._fail(refused.reason, refused.message)
        patience = _NODE_PATIENCE if refused.reason is Reason.SOURCE_NODE_NOT_READY else 5.0
        return self._wait(refused.reason, refused.message, min(left, patience))

    def _claim(self, vm: VirtualMachine) -> Claim:
        spec = self.migration.spec
        return Claim(
            name=self.migration.metadata.name,
            uid=self.migration.metadata.uid,
            source_node=vm.status.node_name or "",
            source_incarnation=vm.status.incarnation or 0,
            target_node=spec.target_node,
            added_node_selector=spec.added_node_selector,
        )

    # --- after the claim: follow what the VM reconciler does ---------------------------------------------

    def _follow(self, vm: VirtualMachine, claim: Claim) -> MigrationPlan:
        source = _pod_of(self.pods, claim.source_incarnation)
        target = _pod_of(self.pods, claim.source_incarnation + 1)
        if vm.metadata.deletion_timestamp is not None:
            return self._fail(Reason.VM_DELETED, "The VM was deleted during its migration")
        if not vm.spec.running:
            return self._fail(Reason.VM_STOPPED, "The VM was stopped during its migration")
        if self.migration.spec.cancel and not _has_moved(vm, claim, target):
            return self._cancel(vm, claim, source, target)
        return self._go_on(vm, claim, source, target)

    def _go_on(  # noqa: PLR0911 - one way out for each state of the pods
        self, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod | None
    ) -> MigrationPlan:
        incarnation = vm.status.incarnation or 0
        if incarnation <= claim.source_incarnation + 1 and source is target is None and _is_spoiled(vm):
            return self._fail(Reason.VM_NOT_RUNNING, "The source pod is gone, and the VM's spec allows no other")
        if incarnation <= claim.source_incarnation:
            if source is None and _create_refusal(vm) is not None:
                return self._awaiting(vm, claim, None)  # the claimed life has no pod to end, and can have none
            return MigrationPlan()  # the VM reconciler has its turn
        if incarnation > claim.source_incarnation + 1:
            if claim.rollback:
                return self._fail(Reason.ROLLED_BACK, self._unplaced())
            lost = f"The target pod was lost before it ran; the next pod of VM {vm.metadata.name} may go to any node"
            return self._fail(Reason.TARGET_LOST, lost)
        if target is None:
            return self._awaiting(vm, claim, source)
        if target.done:
            ended = f"Target pod {target.metadata.name} ended as {target.status.phase}"
            return self._fail(Reason.TARGET_FAILED, f"{ended}; the next pod of the VM may go to any node")
        if target.status.phase == "Running":
            return self._succeed(claim, source, target)
        if target.spec.node_name is not None:
            return self._starting(claim, source, target)
        return self._scheduling(claim, source, target)

    def _cancel(self, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod | None) -> MigrationPlan:
        """Give the VM back as if the migration had been deleted; say so once nothing binds the VM any more."""
        name, released = vm.metadata.name, release_orphan(vm, self.pods).actions
        if ClaimVM(None) in released:
            if vm.status.incarnation == claim.source_incarnation:
                return self._fail(Reason.CANCELLED, "Cancelled before its source was deleted")
            if target is not None and vm.status.incarnation == ownership.incarnation(target):
                goes_on = f"VM {name} goes on with pod {target.metadata.name} on node {target.spec.node_name}"
                return self._fail(Reason.CANCELLED, f"Cancelled on its way: {goes_on}")
            return self._fail(Reason.CANCELLED, f"Cancelled on its way: VM {name} may start on any node")
        left = self._left(self._began(MigrationPhase.TERMINATING), self.migration.spec.completion_timeout_seconds)
        if left <= 0:
            return self._fail(Reason.CANCELLED, f"Cancelled on its way: VM {name} may start on any node when it can")
        phase = MigrationPhase.TERMINATING if target is None and source is not None else MigrationPhase.SCHEDULING
        until = f", once pod {source.metadata.name} is gone" if source is not None else ""
        held = self._held(source) if source is not None else None
        why = f"Cancelled: VM {name} may start on any node{until}{f'. {held}' if held is not None else ''}"
        giving = self._progress(phase, claim, source, target, why)
        return MigrationPlan((*giving.actions, *released), requeue_after=min(left, _UNREMARKABLE))

    def _awaiting(self, vm: VirtualMachine, claim: Claim, source: Pod | None) -> MigrationPlan:
        """Wait for the target pod to be made; a source that does not go, or a quota, may forbid it for ever."""
        left = self._left(self._began(MigrationPhase.TERMINATING), self.migration.spec.completion_timeout_seconds)
        if left <= 0:
            return self._fail(Reason.COMPLETION_TIMEOUT, self._never_made(vm, source))
        if source is None:
            waiting = self._progress(MigrationPhase.SCHEDULING, claim, None, None, _create_refusal(vm))
            return MigrationPlan(waiting.actions, requeue_after=left)
        held = self._held(source)
        waiting = self._progress(MigrationPhase.TERMINATING, claim, source, None, held)
        patience = _UNREMARKABLE if held is None else _NODE_PATIENCE
        return MigrationPlan(waiting.actions, requeue_after=min(left, patience))

    def _held(self, source: Pod) -> str | None:
        """Say what keeps a source from going; None as long as it takes no longer than usual."""
        pod = f"Pod {source.metadata.name} on node {source.spec.node_name}"
        if source.metadata.finalizers:
            return f"{pod} is held by its finalizers: {', '.join(source.metadata.finalizers)}"
        if (silence := nodes.silence(self.view.source_node)) is not None:
            return f"{pod} cannot end: {silence}"
        if self._left(self._began(MigrationPhase.TERMINATING), 0) > -_UNREMARKABLE:
            return None
        return f"{pod} is still terminating" if source.terminating else f"{pod} is still to be deleted"

    def _never_made(self, vm: VirtualMachine, source: Pod | None) -> str:
        """Say why no target pod was made in time, and until when the VM is down."""
        name = vm.metadata.name
        if source is None:
            why = _create_refusal(vm)
            refused = f"could not be made in time ({why})" if why is not None else "was not made in time"
            return f"The target pod {refused}; VM {name} is down until a pod of it can be made"
        held = self._held(source) or f"Pod {source.metadata.name} on node {source.spec.node_name} did not go in time"
        silent = nodes.silence(self.view.source_node) is not None and not source.metadata.finalizers
        until = nodes.revival(source.spec.node_name or "") if silent else "that pod is gone"
        return f"{held}; VM {name} is down until {until}"

    def _scheduling(self, claim: Claim, source: Pod | None, target: Pod) -> MigrationPlan:
        progress = self._progress(MigrationPhase.SCHEDULING, claim, source, target)
        left = self._left(self._began(MigrationPhase.SCHEDULING), self.migration.spec.unschedulable_timeout_seconds)
        if left > 0:
            return MigrationPlan(progress.actions, requeue_after=left)
        if claim.rollback:
            return progress
        return MigrationPlan((*progress.actions, ClaimVM(msgspec.structs.replace(claim, rollback=True))))

    def _starting(self, claim: Claim, source: Pod | None, target: Pod) -> MigrationPlan:
        left = self._left(self._began(MigrationPhase.TERMINATING), self.migration.spec.completion_timeout_seconds)
        if left <= 0:
            pod = f"Target pod {target.metadata.name}"
            late = f"{pod} did not start in time; the VM is down until it does, on node {target.spec.node_name}"
            return self._fail(Reason.COMPLETION_TIMEOUT, late)
        progress = self._progress(MigrationPhase.STARTING, claim, source, target)
        return MigrationPlan(progress.actions, requeue_after=left)

    def _succeed(self, claim: Claim, source: Pod | None, target: Pod) -> MigrationPlan:
        [write] = self._progress(MigrationPhase.SUCCEEDED, claim, source, target).actions
        if not isinstance(write, WriteMigration):  # pragma: no cover - _progress writes nothing else
            raise TypeError(write)
        began = times.parse_timestamp(write.status.start_timestamp) or self.view.now
        done = msgspec.structs.replace(
            write.status,
            target_node=target.spec.node_name,
            end_timestamp=self.now,
            downtime_seconds=f"{max(0.0, (self.view.now - began).total_seconds()):.3f}",
            message=None,
        )
        return MigrationPlan((WriteMigration(done), ClaimVM(None)))

    # --- parts -------------------------------------------------------------------------------------------

    def _progress(
        self, phase: MigrationPhase, claim: Claim, source: Pod | None, target: Pod | None, message: str | None = None
    ) -> MigrationPlan:
        """Publish a phase after the claim, with every phase on the way to it; the target may bring its own message."""
        before = self.before
        bound = target.status.condition("PodScheduled") if target is not None else None
        waits = bound.message if bound is not None and bound.status == "False" else None
        guess = self._guess(phase)
        wanted = msgspec.structs.replace(
            self._at(phase),
            source_node=claim.source_node,
            source_pod=before.source_pod or self._source_pod(source),
            target_pod=target.metadata.name if target is not None else None,
            target_node=target.spec.node_name if target is not None else None,
            start_timestamp=before.start_timestamp or self.now,
            # Why there is no room although there was said to be: the scheduler knows more.
            message=message or (f"{waits} ({guess})" if waits and guess else waits or guess),
        )
        return self._write(wanted, reason=str(phase))

    def _guess(self, phase: MigrationPhase) -> str | None:
        """Say of a migration of ours that looks for its node what was not known when it was claimed."""
        looks = phase in (MigrationPhase.TERMINATING, MigrationPhase.SCHEDULING)
        return GUESS if looks and self.view.guessed and self.migration.spec.record_of is None else None

    def _source_pod(self, source: Pod | None) -> str | None:
        return source.metadata.name if source is not None else self.migration.metadata.annotations.get(names.SOURCE_POD)

    def _fail(self, reason: Reason, message: str) -> MigrationPlan:
        failed = msgspec.structs.replace(
            self._at(MigrationPhase.FAILED), end_timestamp=self.now, failure_reason=str(reason), message=message
        )
        written = self._write(failed, reason=str(reason)).actions
        claim = self.vm.status.migration if self.vm is not None else None
        mine = claim is not None and claim.uid == self.migration.metadata.uid
        return MigrationPlan((*written, ClaimVM(None)) if mine else written)

    def _wait(self, reason: Reason, message: str, seconds: float) -> MigrationPlan:
        waiting = msgspec.structs.replace(self._at(MigrationPhase.PENDING), message=message)
        return MigrationPlan(self._write(waiting, reason=str(reason)).actions, requeue_after=max(seconds, 0.1))

    def _at(self, phase: MigrationPhase) -> MigrationStatus:
        """Return the status in a phase, with the time of each phase that was passed on the way."""
        passed = [MigrationPhase.PENDING, MigrationPhase.TERMINATING, MigrationPhase.SCHEDULING]
        passed.append(MigrationPhase.STARTING)
        if phase is MigrationPhase.FAILED:
            steps: list[MigrationPhase] = [phase]
        elif phase is MigrationPhase.SUCCEEDED:
            steps = [*passed, phase]
        else:
            steps = passed[: passed.index(phase) + 1]
        told = {step.phase for step in self.before.phase_transition_timestamps}
        fresh = tuple(PhaseTime(str(step), self.now) for step in steps if step not in told)
        return msgspec.structs.replace(
            self.before,
            phase=str(phase),
            phase_transition_timestamps=(*self.before.phase_transition_timestamps, *fresh),
        )

    def _write(self, wanted: MigrationStatus, *, reason: str) -> MigrationPlan:
        done = "True" if wanted.phase == MigrationPhase.SUCCEEDED else "False"
        before = next((found for found in self.before.conditions if found.type == COMPLETED), None)
        at = before.last_transition_time if before is not None and before.status == done else None
        condition = Condition(
            type=COMPLETED,
            status=done,
            last_transition_time=at or times.timestamp(self.view.now),
            reason=reason,
            message=wanted.message or "",
        )
        complete = msgspec.structs.replace(
            wanted,
            observed_generation=self.migration.metadata.generation or None,
            vm_uid=self._vm_uid(),
            conditions=(condition,),
        )
        return MigrationPlan((WriteMigration(complete),) if complete != self.before else ())

    def _vm_uid(self) -> str | None:
        """Return the VM that this migration is about: the first that had its name once it was looked at."""
        return self.migration.vm_uid or (self.vm.metadata.uid if self.vm is not None else None)

    def _began(self, phase: MigrationPhase) -> str | None:
        """When a phase began; now, if it begins with this step."""
        times = self.before.phase_transition_timestamps
        return next((step.phase_transition_timestamp for step in times if step.phase == phase), self.now)

    def _left(self, since: str | None, seconds: int) -> float:
        start = times.parse_timestamp(since) or self.view.now
        return seconds - (self.view.now - start).total_seconds()

    def _unplaced(self) -> str:
        why = self.before.message or "no reason was given"
        return f"The target pod found no node in time ({why}); the next pod of the VM may go to any node"
