"""The migration's decision: delete the source, then create the target; one idempotent step a reconcile.

A migration never touches a pod. It claims the VM (`status.migration`, a guarded write), which ends the claimed
incarnation. The VM reconciler, the only one that acts on pods, deletes that incarnation's pod and creates the next one
under the claim's constraints. So the two never both act on a pod. Guarantees:

- A pure function: the same view gives the same answer, a plan or the question that has to be answered first.
- Nothing is claimed before preflight succeeds; a migration that fails before its claim leaves the VM untouched.
- At most one migration has a VM, since the claim is a single field of the VM.
- Every claim ends: with the target running, with a failure, or, if the migration object is deleted, by itself.
- A failed migration never leaves a VM without a pod: an unplaced target is rolled back to a pod that may run on any
  node.
"""

from __future__ import annotations

import msgspec

from controller.domain.migration import evictions, live, moving, orphans, pending
from controller.domain.migration.move import Move
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.migration.plan import Ask, ClaimVM, ConfirmClaimLost, ConfirmVMGone, Plan, View, WriteMigration
from controller.domain.objects import VirtualMachine
from controller.domain.vm.policy import LauncherPolicy


def decide(view: View, policy: LauncherPolicy) -> Plan | Ask:
    """Return the next step of one migration, or of a claim without one, or the question to be answered first."""
    if view.migration is None:
        return orphans.decide(view)
    move = Move(view, view.migration, policy)
    if view.migration.finished:
        writes = _note_generation(move)
        return Plan((*writes, *_let_go(move)))
    if move.vm is not None and view.migration.vm_uid not in (None, move.vm.metadata.uid):
        return _fail_for_namesake(move, move.vm)
    if view.migration.spec.record_of is not None:
        return evictions.decide(move)
    return _carry_on(move, policy)


def _let_go(move: Move) -> tuple[ClaimVM, ...]:
    """End the claim of a migration that has ended; a live one ends by itself, when its second pod is gone."""
    claim = move.claim
    if move.vm is None or claim is None or not move.mine:
        return ()
    if not claim.is_live:
        return (ClaimVM(None),)
    why = f"{move.before.failure_reason or Reason.CANCELLED}: {move.before.message or 'the migration has ended'}"
    return live.let_go(move.vm, claim, why)


def _note_generation(move: Move) -> tuple[WriteMigration, ...]:
    """Publish the generation of a spec that was edited after the end, so that clients do not wait for it.

    A status without a generation is an older release's, and never counts as stale.
    """
    newest = move.migration.metadata.generation
    if (move.before.observed_generation or newest) == newest:
        return ()
    return (WriteMigration(msgspec.structs.replace(move.before, observed_generation=newest)),)


def _carry_on(move: Move, policy: LauncherPolicy) -> Plan | Ask:
    if move.vm is not None and move.claim is not None and move.mine:
        if move.claim.is_live:
            return live.decide(move, move.vm, move.claim)
        return moving.decide(move, move.vm, move.claim)
    if (ended := live.ended(move)) is not None:
        return ended
    if move.before.phase == MigrationPhase.PENDING:
        return pending.decide(move, policy)
    if move.vm is None:
        return move.fail(Reason.VM_DELETED, "The VM was deleted during its migration")
    lost = move.fail(Reason.CLAIM_LOST, "The VM's status does not name this migration any more")
    return Plan((ConfirmClaimLost(), *lost.actions))


def _fail_for_namesake(move: Move, vm: VirtualMachine) -> Plan:
    """Fail a migration whose VM was deleted; `vm` is a namesake."""
    failed = move.fail(Reason.VM_DELETED, f"The VM was deleted; VM {vm.metadata.name} was created again and is another")
    return Plan((ConfirmVMGone(move.migration.vm_uid or ""), *failed.actions))
