"""A live migration that has claimed its VM: two pods, copying, the hand-over; and every way in which it is undone.

Guarantees: before the hand-over a failure marks the claim as aborting before the migration is Failed, both guarded; the
VM runs on where it was. After the hand-over the migration succeeds, whatever happens to the source. What the VM
reconciler does with the pods meanwhile is only reported.
"""

from __future__ import annotations

from typing import Final

import msgspec

from controller.domain.migration.move import UNREMARKABLE, Move, is_spoiled, pod_of
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.migration.plan import ClaimVM, ConfirmPodGone, Plan, WriteMigration
from controller.domain.migration.transfer import PENDING_TIMEOUT, copy, follow_post_copy
from controller.domain.objects import Claim, GuestMode, VirtualMachine
from controller.domain.vm import records, status
from controller.kube import times
from controller.kube.kinds import Pod

_BRIEF: Final = 8.0
"""Seconds for which a phase before copying without a problem may go unpublished: most pass within them."""


def decide(move: Move, vm: VirtualMachine, claim: Claim) -> Plan:
    """Decide about a live migration that has claimed the VM."""
    source, target = pod_of(move.pods, claim.source_incarnation), pod_of(move.pods, claim.target)
    if claim.aborting is not None:
        return move.tell(claim.aborting)
    if vm.status.incarnation == claim.target:
        if claim.mode == GuestMode.POST_COPY:
            return follow_post_copy(move, vm, claim, source, target)
        return _clean_up(move, claim, source, target)
    failure = _unwanted(move, vm) or _source_lost(move, vm, source) or _target_failed(move, target)
    if failure is not None:
        plan = move.abort(claim, *failure)
        if source is None and failure[0] is Reason.SOURCE_LOST and vm.status.pod_name is not None:
            return _after(ConfirmPodGone(vm.status.pod_name, vm.status.pod_uid or ""), plan)
        return plan
    return _await_target(move, vm, claim, source) if target is None else _follow(move, vm, claim, source, target)


def is_over(vm: VirtualMachine, claim: Claim) -> bool:
    """Whether a live claim is only kept until the second pod is gone: it is being undone, or has handed over."""
    return claim.aborting is not None or vm.status.incarnation == claim.target


def let_go(vm: VirtualMachine, claim: Claim, why: str) -> tuple[ClaimVM, ...]:
    """Return the end of a live claim whose migration has ended, or does not exist any more.

    Before the hand-over it is undone; after it the move goes on by itself, and nobody follows a post-copy any more.
    """
    if not is_over(vm, claim):
        return (ClaimVM(msgspec.structs.replace(claim, aborting=why)),)
    if claim.aborting is None and claim.mode == GuestMode.POST_COPY:
        return (ClaimVM(msgspec.structs.replace(claim, mode=GuestMode.COPIED)),)
    return ()


def ended(move: Move) -> Plan | None:
    """Publish that a migration whose claim is gone succeeded: its end is the hand-over. None if there was none."""
    over = move.vm.status.last_hand_over if move.vm is not None else None
    if move.vm is None or over is None or over.uid != move.migration.metadata.uid:
        return None
    return Plan((move.succeed_live(pod_of(move.pods, move.vm.status.incarnation or 0), over),))


def _after(guard: ConfirmPodGone, plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, actions=(guard, *plan.actions))


def _clean_up(move: Move, claim: Claim, source: Pod | None, target: Pod | None) -> Plan:
    """Wait until the source pod is gone and the claim removed; then the migration succeeds."""
    blocker = move.blocker(source) if source is not None else None
    progress = move.progress(MigrationPhase.RUNNING, claim, source, target, blocker) if blocker is not None else ()
    return Plan(progress, requeue_after=UNREMARKABLE)


def _unwanted(move: Move, vm: VirtualMachine) -> tuple[Reason, str] | None:
    if vm.metadata.deletion_timestamp is not None:
        return Reason.VM_DELETED, "The VM was deleted during its migration"
    if not vm.spec.running:
        return Reason.VM_STOPPED, "The VM was stopped during its migration"
    if move.migration.spec.cancel:
        return Reason.CANCELLED, "Cancelled before the VM was handed over"
    if is_spoiled(vm):
        return Reason.INVALID_SPEC, "The VM's spec became invalid during its migration"
    return None


def _source_lost(move: Move, vm: VirtualMachine, source: Pod | None) -> tuple[Reason, str] | None:
    if move.view.nodes_known and move.view.source_node is None:
        return Reason.SOURCE_LOST, f"Node {vm.status.node_name} of the VM no longer exists"
    if source is None:
        return Reason.SOURCE_LOST, f"Pod {vm.status.pod_name} of the VM was deleted before the hand-over"
    if source.done:
        return Reason.SOURCE_LOST, f"Pod {source.metadata.name} of the VM ended before the hand-over"
    if source.terminating:
        return Reason.SOURCE_LOST, f"Pod {source.metadata.name} of the VM is {_deleted(source)}"
    return None


def _target_failed(move: Move, target: Pod | None) -> tuple[Reason, str] | None:
    if target is None:
        return None
    if move.view.nodes_known and target.spec.node_name is not None and move.view.target_node is None:
        return Reason.TARGET_LOST, f"Node {target.spec.node_name} of the target pod no longer exists"
    if target.done:
        return Reason.TARGET_FAILED, f"Target pod {target.metadata.name} ended as {target.status.phase}"
    if target.terminating:
        return Reason.TARGET_LOST, f"Target pod {target.metadata.name} is {_deleted(target)}"
    return None


def _deleted(pod: Pod) -> str:
    why = records.disruption(pod)
    return f"being deleted{f' ({why})' if why else ''}"


def _await_target(move: Move, vm: VirtualMachine, claim: Claim, source: Pod | None) -> Plan:
    """Wait until the VM reconciler has created the target pod; publish that if it takes longer than usual."""
    moving = next((found for found in vm.status.conditions if found.type == status.MIGRATING), None)
    began = times.parse_timestamp(moving.last_transition_time) if moving is not None else None
    left = UNREMARKABLE - (move.view.now - began).total_seconds() if began is not None else 0.0
    if left > 0:
        return Plan(requeue_after=left)
    if move.before.phase != MigrationPhase.PENDING:
        return Plan(requeue_after=UNREMARKABLE)  # a target that is gone is the VM reconciler's to judge
    return Plan(move.progress(MigrationPhase.PENDING, claim, source, None, "The target pod is not created yet"))


def _follow(move: Move, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod) -> Plan:
    """Follow the target pod until it runs; then the memory is copied."""
    spec = move.migration.spec
    if target.spec.node_name is None:
        left = spec.unschedulable_timeout_seconds - move.since(MigrationPhase.SCHEDULING)
        if left <= 0:
            why = status.unschedulable(target) or "no reason was given"
            return move.abort(claim, Reason.TARGET_UNSCHEDULABLE, f"The target pod found no node in time ({why})")
        return _publish(move, move.progress(MigrationPhase.SCHEDULING, claim, source, target), target, left)
    if not status.runs_ready(target) and move.before.copying is None:
        left = PENDING_TIMEOUT - move.since(MigrationPhase.SCHEDULED)
        if left <= 0:
            where = f"{target.metadata.name} did not start in time on node {target.spec.node_name}"
            return move.abort(claim, Reason.TARGET_FAILED, f"Target pod {where}")
        return _publish(move, move.progress(MigrationPhase.SCHEDULED, claim, source, target), target, left)
    return copy(move, vm, claim, source, target)


def _publish(move: Move, progress: tuple[WriteMigration, ...], target: Pod, left: float) -> Plan:
    """Publish a phase before copying if it lasts, or has a problem; `left`: seconds until its timeout.

    Phases that pass at once are published with the next one, in one status.
    """
    created = times.parse_timestamp(target.metadata.creation_timestamp) or move.view.now
    brief = _BRIEF - (move.view.now - created).total_seconds()
    if progress and 0 < brief <= _BRIEF and status.unschedulable(target) is None:
        return Plan(requeue_after=min(brief, left))
    return Plan(progress, requeue_after=left)
