"""The record of an eviction: reports a move that another client caused, and never acts."""

from __future__ import annotations

from controller.domain import names
from controller.domain.migration.move import NODE_PATIENCE, UNREMARKABLE, Move, pod_of
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.migration.plan import Plan
from controller.domain.objects import Claim
from controller.domain.vm import records
from controller.kube.kinds import Pod


def decide(move: Move) -> Plan:
    """Follow a VM whose pod was evicted."""
    incarnation = records.source_incarnation(move.migration)
    if incarnation is None:
        return move.fail(Reason.INVALID_RECORD, "spec.recordOf is for the controller's own records of evictions")
    vm = move.vm
    if vm is None or vm.metadata.deletion_timestamp is not None:
        return move.fail(Reason.VM_DELETED, "The VM was deleted after its pod was evicted")
    if not vm.spec.running:
        return move.fail(Reason.VM_STOPPED, "The VM was stopped after its pod was evicted")
    node = move.migration.metadata.annotations.get(names.SOURCE_NODE, "")
    return _follow(move, Claim(source_node=node, source_incarnation=incarnation), vm.status.incarnation or 0)


def _follow(move: Move, claim: Claim, now: int) -> Plan:
    """Follow the VM from the evicted incarnation to `now`, its current one."""
    evicted = move.migration.spec.record_of
    source = next((pod for pod in move.pods if pod.metadata.uid == evicted), None)
    # The incarnation does not identify the evicted pod. If that pod was deleted before the VM's status recorded it, its
    # successor has the same incarnation; and after a wiped status the count restarts. So any pod of the current
    # incarnation but the evicted one is its successor.
    target = pod_of(move.pods, now)
    if target is None or target is source or target.done:
        phase = MigrationPhase.TERMINATING if now <= claim.source_incarnation else MigrationPhase.SCHEDULING
        if source is None:
            return Plan(move.progress(phase, claim, None, None))
        return _follow_source(move, claim, phase, source)
    if target.status.phase == "Running":
        return Plan((move.succeed(claim, source, target),))
    phase = MigrationPhase.STARTING if target.spec.node_name is not None else MigrationPhase.SCHEDULING
    return Plan(move.progress(phase, claim, source, target))


def _follow_source(move: Move, claim: Claim, phase: MigrationPhase, source: Pod) -> Plan:
    """Follow an evicted pod until it is deleted, unless its node returns first or the eviction is withdrawn."""
    if records.withdrawn(source):
        return move.fail(Reason.CANCELLED, "The eviction was withdrawn before its pod was deleted")
    blocker = move.blocker(source)
    progress = move.progress(phase, claim, source, None, blocker)
    if move.migration.spec.reason != records.NODE_LOST or source.terminating:
        return Plan(progress, requeue_after=UNREMARKABLE if blocker is None else None)
    if move.view.source_node is not None:
        return move.fail(Reason.CANCELLED, "The node came back before its pod was removed")
    return Plan(progress, requeue_after=NODE_PATIENCE)
