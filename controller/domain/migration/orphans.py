"""Orphaned claims: the migration was deleted, so the claim is removed from the VM."""

from __future__ import annotations

import msgspec

from controller.domain.migration import live
from controller.domain.migration.move import is_spoiled, own, pod_of
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import AskOrphaned, ClaimVM, Plan, View
from controller.domain.objects import Claim, VirtualMachine
from controller.kube.kinds import Pod


def decide(view: View) -> Plan | AskOrphaned:
    """Decide about a claim whose migration the cache does not have."""
    vm = view.vm
    claim = vm.status.migration if vm is not None else None
    if vm is None or claim is None:
        return Plan()
    if not view.answers.orphaned:
        return AskOrphaned(claim)
    if claim.is_live:
        return Plan(live.let_go(vm, claim, f"{Reason.CANCELLED}: the migration was deleted"))
    left = view.answers.unsettled
    released = release(vm, claim, own(vm, view.pods), settled=claim.rollback and left <= 0)
    return Plan(released, requeue_after=left if left > 0 else None)


def release(vm: VirtualMachine, claim: Claim, pods: tuple[Pod, ...], *, settled: bool = False) -> tuple[ClaimVM, ...]:
    """Remove a claim as soon as the VM does not need it any more; `pods` are the VM's own.

    A target without a node might wait for ever, so the claim is rolled back first. `settled`: no create from before the
    rollback can still commit.
    """
    target = pod_of(pods, claim.target)
    wanted = vm.spec.running and vm.metadata.deletion_timestamp is None
    if not wanted or (target is None and is_spoiled(vm)):
        return (ClaimVM(None),)
    unplaced = vm.status.incarnation == claim.target and (target is None or target.spec.node_name is None)
    if unplaced and not claim.rollback:
        return (ClaimVM(msgspec.structs.replace(claim, rollback=True)),)
    if unplaced and not (settled and target is None):
        return ()
    return (ClaimVM(None),)
