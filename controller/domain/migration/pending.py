"""A migration that has not claimed its VM yet: what forbids the claim, what it waits for, and the questions before it.

Guarantees: the VM is untouched. Checks without I/O come before any question, and the cheapest question comes first.
"""

from __future__ import annotations

from typing import Final

import msgspec

from controller.domain import nodes
from controller.domain.migration import copying, live, preflight
from controller.domain.migration.backoff import backoff, explain
from controller.domain.migration.demand import Demand, demand
from controller.domain.migration.move import NODE_PATIENCE, Move
from controller.domain.migration.phases import BOUNDED, Reason
from controller.domain.migration.plan import (
    Ask,
    AskDryRun,
    AskNode,
    AskSlot,
    ClaimVM,
    ConfirmWanted,
    Plan,
    Refused,
)
from controller.domain.objects import Claim, Strategy, VirtualMachine
from controller.domain.ratio import RatioError
from controller.domain.vm import records, status
from controller.domain.vm.placement import HOSTNAME, PlacementError
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Pod

_PATIENCE: Final = 5.0
"""Seconds after which a refused migration is reconciled again without an event."""


def decide(move: Move, policy: LauncherPolicy) -> Plan | Ask:
    """Decide about a migration that has no claim yet."""
    vm = move.vm
    if vm is None:
        return _refuse(move, _unwanted(move) or _without_vm(move))
    source = next((pod for pod in move.pods if pod.metadata.uid == vm.status.pod_uid), None)
    if (refused := _unwanted(move) or _immovable(move, vm, source)) is not None:
        return _refuse(move, refused)
    if (waits := backoff(move.view.history, vm.metadata.uid, move.view.now)) is not None:
        return move.wait(Reason.BACKOFF, explain(vm.metadata.name, waits), waits.left)
    claim = _claim(move, vm)
    try:
        wanted = demand(claim, vm, policy, source)
    except (RatioError, PlacementError) as error:
        return move.fail(Reason.VM_NOT_RUNNING, str(error))
    return _ask(move, claim, wanted, source)


def _ask(move: Move, claim: Claim, wanted: Demand, source: Pod | None) -> Plan | Ask:
    """Return the next question before the claim, the cheapest first, or the claim itself."""
    view, answers = move.view, move.view.answers
    named = claim.target_node if view.nodes_known else None  # without access to nodes, the scheduler decides
    tolerations = wanted.requirements.tolerations
    wrong = preflight.wrong_target(named, view.target_node, tolerations) if named is not None else None
    if (refused := wrong or answers.refused) is not None:
        return _refuse(move, refused)
    if answers.later > 0:
        return Plan(requeue_after=answers.later)
    if not answers.slot:
        return AskSlot(wanted)
    if answers.node is None:
        return AskNode(wanted)
    if not answers.accepted:
        # The quota counts the whole target of a live move: its source stays.
        return AskDryRun(claim, None if claim.is_live else source, beside=source if claim.is_live else None)
    reserved = msgspec.structs.replace(claim, reserved_node=answers.node or None, by_preemption=answers.by_preemption)
    return Plan((ConfirmWanted(), ClaimVM(reserved)))


def _claim(move: Move, vm: VirtualMachine) -> Claim:
    spec = move.migration.spec
    is_live = (spec.strategy or move.view.strategy) == Strategy.LIVE
    source, following = vm.status.incarnation or 0, vm.status.next_incarnation
    node = move.view.source_node
    return Claim(
        name=move.migration.metadata.name,
        uid=move.migration.metadata.uid,
        source_node=vm.status.node_name or "",
        source_incarnation=source,
        target_node=spec.target_node,
        added_node_selector=spec.added_node_selector,
        strategy=str(Strategy.LIVE) if is_live else None,
        target_incarnation=following if is_live or following != source + 1 else None,
        barred_by_name=is_live and (node is None or HOSTNAME not in node.metadata.labels),
    )


def _refuse(move: Move, refused: Refused) -> Plan:
    if refused.for_good:
        return move.fail(refused.reason, refused.message)
    refused_for = move.view.now - move.view.refused_since.get(refused.reason, move.view.now)
    left = move.migration.spec.unschedulable_timeout_seconds - refused_for.total_seconds()
    if refused.reason in BOUNDED and left <= 0:
        return move.fail(refused.reason, refused.message)
    patience = NODE_PATIENCE if refused.reason is Reason.SOURCE_NODE_NOT_READY else _PATIENCE
    return move.wait(refused.reason, refused.message, min(left, patience))


def _unwanted(move: Move) -> Refused | None:
    """Return why the migration object itself forbids the move; None if it does not."""
    if move.migration.spec.cancel:
        return Refused(Reason.CANCELLED, "Cancelled before its source was deleted", for_good=True)
    if move.migration.spec_problem is not None:
        return Refused(Reason.INVALID_SPEC, move.migration.spec_problem, for_good=True)
    if (problem := copying.problem(move.migration.spec.live)) is not None:
        return Refused(Reason.INVALID_SPEC, problem, for_good=True)
    return None


def _without_vm(move: Move) -> Refused:
    name = move.migration.spec.vm_name
    if move.before.vm_uid is not None:
        return Refused(Reason.VM_DELETED, f"VM {name} was deleted before it moved", for_good=True)
    return Refused(Reason.VM_NOT_FOUND, f"There is no VM {name}", for_good=True)


def _immovable(move: Move, vm: VirtualMachine, pod: Pod | None) -> Refused | None:
    """Return why the VM cannot leave its node, independent of other nodes and limits; None if it can."""
    name = vm.metadata.name
    if move.claim is not None:
        claim, message = move.claim, f"VM {name} is being moved by migration {move.claim.name}"
        over = claim.is_live and live.is_over(vm, claim)
        if over:
            message = f"VM {name} is still claimed by migration {claim.name}, which has ended and is cleaned up"
        return Refused(Reason.ANOTHER_MIGRATION, message, for_good=not over)
    if not _movable(vm):
        message = f"VM {name} is {vm.status.phase}, and only a Running VM moves"
        return Refused(Reason.VM_NOT_RUNNING, message, for_good=True)
    if move.migration.spec.target_node == vm.status.node_name:
        message = f"VM {name} is on node {vm.status.node_name} already"
        return Refused(Reason.TARGET_IS_SOURCE, message, for_good=True)
    evicted = records.disruption(pod) if pod is not None else None
    if pod is not None and (evicted is not None or pod.terminating):
        ending = f"is being evicted ({evicted})" if evicted is not None else "is being deleted"
        message = f"Pod {pod.metadata.name} of VM {name} {ending} already"
        return Refused(Reason.VM_NOT_RUNNING, message, for_good=True)
    if (silence := nodes.silence(move.view.source_node)) is not None:
        until = nodes.revival(vm.status.node_name or "")
        why = f"VM {name} cannot be taken down: {silence}, so its pod's deletion would not finish until {until}"
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
