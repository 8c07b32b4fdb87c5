"""The copying of a live migration: from a target that runs to the hand-over, and the rest after it, if it is post-copy.

Guarantees: copying goes on by the clock, also while nobody looks; the hand-over waits for a target node that reports.
How far it is comes from the view; the status has a checkpoint when copying begins, every `RECORDED_EVERY` seconds, and
at the end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from controller.domain import nodes
from controller.domain.copying.model import Checkpoint, Mode
from controller.domain.copying.record import Copying
from controller.domain.migration import copying
from controller.domain.migration.move import NODE_PATIENCE, UNREMARKABLE, Move
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.migration.plan import ClaimVM, ConfirmPodGone, HandOver, Plan
from controller.domain.objects import Claim, GuestMode, VirtualMachine
from controller.domain.ratio import RatioError
from controller.domain.vm import records, status
from controller.kube import times
from controller.kube.kinds import Node, Pod

PENDING_TIMEOUT: Final = 900.0
"""Seconds in which a target has to start, or its node to come back: KubeVirt's timeout for a pending target pod."""
_AT_ONCE: Final = 0.01
"""Seconds after which computing goes on that takes more steps than one decision may cost."""
_MIB: Final = 2**20


def copy(move: Move, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod) -> Plan:
    """Follow the copying of memory to a target that runs; then hand the VM over."""
    record, progress = move.before.copying, move.view.progress
    if record is None or not record.usable:
        return _begin(move, vm, claim, source, target)
    if progress is None or progress.behind:
        return Plan(requeue_after=UNREMARKABLE if progress is None else _AT_ONCE)
    checkpoint = progress.checkpoint
    if checkpoint.aborted:
        return move.abort(claim, *_timed_out(record, checkpoint))
    if checkpoint.hand_over_due:
        return _hand_over(move, claim, source, target, checkpoint)
    if checkpoint.mode is Mode.PAUSED and claim.mode != GuestMode.PAUSED:
        return Plan((ClaimVM(msgspec.structs.replace(claim, mode=GuestMode.PAUSED)),))
    return _go_on(move, claim, source, target)


def follow_post_copy(move: Move, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod | None) -> Plan:
    """Follow a VM that runs on the target while a part of its memory is on the source: it needs both pods."""
    lost = _lost(move, source, move.view.source_node, "source") or _lost(move, target, move.view.target_node, "target")
    if lost is not None:
        goes_on = vm.spec.running and vm.metadata.deletion_timestamp is None
        then = "the VM restarts" if goes_on else "the VM was to end"
        plan = move.abort(claim, Reason.POST_COPY_LOST, f"{lost} before all memory was copied; {then}")
        names = [name for pod, name in ((source, move.before.source_pod), (target, move.before.target_pod)) if not pod]
        guards = tuple(ConfirmPodGone(name, "") for name in names if name)
        return msgspec.structs.replace(plan, actions=(*guards, *plan.actions))
    progress = move.view.progress
    if progress is None or progress.checkpoint.ended:
        return Plan((ClaimVM(msgspec.structs.replace(claim, mode=GuestMode.COPIED)),))
    return Plan(requeue_after=_AT_ONCE) if progress.behind else _go_on(move, claim, source, target)


def _begin(move: Move, vm: VirtualMachine, claim: Claim, source: Pod | None, target: Pod) -> Plan:
    """Publish that copying begins: what is copied, and under which limits."""
    try:
        begun = copying.begin(
            move.migration, vm, source, reference=move.policy.reference, policy=move.view.live, now=move.view.now
        )
    except RatioError as error:
        return move.abort(claim, Reason.INVALID_SPEC, str(error))
    return Plan(move.progress(MigrationPhase.RUNNING, claim, source, target, copied=begun))


def _go_on(move: Move, claim: Claim, source: Pod | None, target: Pod | None) -> Plan:
    """Publish a checkpoint if one is due, and decide again when the next one is.

    When there is something to be decided, the reconciler is told (`controller.reconcilers.migration.copying`).
    """
    record, progress = move.before.copying, move.view.progress
    if record is None or progress is None:
        raise AssertionError(f"{move.migration.metadata.key} does not copy")
    written = times.parse_timestamp(record.timestamp)
    left = copying.RECORDED_EVERY - (move.view.now - written).total_seconds() if written is not None else 0.0
    mode = progress.checkpoint.mode
    switched = mode in (Mode.PAUSED, Mode.POST_COPY) and mode is not record.checkpoint.mode
    due = switched or not 0 < left <= copying.RECORDED_EVERY
    copied = copying.recorded(record, progress.checkpoint, move.view.now) if due else None
    message = "The guest is paused until its memory is copied" if mode is Mode.PAUSED else None
    writes = move.progress(MigrationPhase.RUNNING, claim, source, target, message, copied=copied)
    return Plan(writes, requeue_after=copying.RECORDED_EVERY if due else left)


def _hand_over(move: Move, claim: Claim, source: Pod | None, target: Pod, checkpoint: Checkpoint) -> Plan:
    """Hand the VM over, to a target that is ready on a node that reports."""
    unready = _unready(target, move.view.target_node)
    if unready is None:
        mode = claim.mode if claim.mode is None else str(GuestMode.COPIED)
        after = str(GuestMode.POST_COPY) if checkpoint.mode is Mode.POST_COPY else mode
        return Plan((HandOver(msgspec.structs.replace(claim, mode=after), target, checkpoint.downtime),))
    why, since = unready
    waited = (move.view.now - since).total_seconds() if since is not None else move.since(MigrationPhase.RUNNING)
    left = PENDING_TIMEOUT - waited
    if left <= 0:
        return move.abort(claim, Reason.TARGET_NODE_NOT_READY, f"The VM cannot be handed over: {why}")
    waiting = move.progress(MigrationPhase.RUNNING, claim, source, target, f"The hand-over waits: {why}")
    return Plan(waiting, requeue_after=min(left, NODE_PATIENCE))


def _unready(target: Pod, node: Node | None) -> tuple[str, datetime | None] | None:
    """Return why the target cannot take the VM over, and since when; None if it can."""
    if node is not None and (silence := nodes.silence(node)) is not None:
        return silence, nodes.silent_since(node)
    if status.runs_ready(target):
        return None
    ready = target.status.condition("Ready")
    since = times.parse_timestamp(ready.last_transition_time) if ready is not None else None
    return f"target pod {target.metadata.name} is not ready", since


def _timed_out(record: Copying, checkpoint: Checkpoint) -> tuple[Reason, str]:
    if checkpoint.mode is Mode.STUCK:
        return Reason.PROGRESS_TIMEOUT, f"Nothing could be copied for {record.limits.progress_timeout:g} s"
    rest = checkpoint.rest / _MIB
    why = f"Not copied within {checkpoint.elapsed:g} s: {rest:,.0f} MiB are left after {checkpoint.round} rounds"
    return Reason.COMPLETION_TIMEOUT, f"{why}; it needs more bandwidth, auto-converge or post-copy"


def _lost(move: Move, pod: Pod | None, node: Node | None, end: str) -> str | None:
    """Return how one end of a post-copy was lost; None if it was not."""
    if pod is None:
        return f"The {end} pod was deleted"
    name = f"The {end} pod {pod.metadata.name}"
    if move.view.nodes_known and node is None:
        return f"{name} was lost with its node {pod.spec.node_name}"
    if pod.done:
        return f"{name} ended as {pod.status.phase}"
    return f"{name} was {'evicted' if records.disruption(pod) else 'deleted'}" if pod.terminating else None
