"""The decision about a VM that moves live: its two pods, the numbers of their incarnations, and the end of its claim.

The migration's decision makes the claim, marks it as aborting, and hands the VM over (`controller.domain.migration`);
this one acts on the pods, and removes the claim. Guarantees:

- The target pod exists only while the claim names it and is not aborting. Its create is sent once: a second attempt
  has a new number, since the first pod may have come to be and be gone.
- After the hand-over the source pod is deleted, and runs nothing meanwhile; in post-copy, once all memory is copied.
  If either pod is lost before, the VM is: both pods are deleted, and it starts anew.
- The claim is removed only when a live read finds no second pod by its name, and no create of it may still commit; that
  of a move that is undone, only when its migration has said why, or no longer exists.
- Until then the incarnation stays, whatever happens to the pod of the VM.
"""

from __future__ import annotations

from typing import Final

import msgspec

from controller.domain import ownership
from controller.domain.objects import Claim, HandOver, VirtualMachineMigration
from controller.domain.vm import launcher, status
from controller.domain.vm.plan import Action, ConfirmPodGone, ConfirmTold, CreatePod, Plan, WriteStatus
from controller.domain.vm.state import VMState
from controller.domain.vm.status import Phase, Verdict
from controller.kube.kinds import Pod

UNTOLD: Final = 1.0
"""Seconds after which the VM is decided again while its migration has not said why it failed: that causes no event."""
LOST: Final = "TargetLost"
REFUSED: Final = "TargetRefused"
"""Reasons of a migration's failure that this decision finds."""


def decide(state: VMState, claim: Claim) -> Plan:
    """Return the next step of a VM with a live claim that is to run."""
    follow = _follow(state, claim)
    if state.superfluous:
        return Plan((*state.view.deletions(state.superfluous, _why(state, claim)), *follow))
    if state.wants_target:
        return _bring_target(state, claim, follow) if state.target is None else Plan(follow)
    if state.in_post_copy:
        # The migration's decision says when all memory is copied, or an end is lost; a hidden pod is no lost one.
        hidden = all(ownership.incarnation(pod) != claim.source_incarnation for pod in state.own)
        return Plan((*follow, ConfirmPodGone(state.name(claim.source_incarnation))) if hidden else follow)
    return release(state, claim, follow)


def release(state: VMState, claim: Claim, follow: tuple[Action, ...] = (), *, last: tuple[Action, ...] = ()) -> Plan:
    """Remove the claim once its second pod is gone for sure; the caches show none.

    `follow` keeps the status current until then; the write of `last`, if there is one, is made with the removal.
    """
    wait = state.circumstances.create_expected
    if wait > 0:
        return Plan(follow, requeue_after=wait)
    told: tuple[Action, ...] = ()
    if claim.aborting is not None or state.in_post_copy or state.incarnation != claim.target:
        migration = _migration(state, claim)
        if migration is None:
            told = (ConfirmTold(claim.name, claim.uid),)  # it was deleted, or the cache lags
        elif not migration.finished:
            return Plan(follow, requeue_after=UNTOLD)  # the migration's reconcile says first why it ends
    ends = {claim.source_incarnation, claim.target} - {state.incarnation}
    gone = tuple(ConfirmPodGone(state.name(number)) for number in sorted(ends))
    ending = last or follow
    writes = [action for action in ending if isinstance(action, WriteStatus)]
    wanted = writes[0].status if writes else state.vm.status
    others = tuple(action for action in ending if not isinstance(action, WriteStatus))
    conditions = tuple(found for found in wanted.conditions if found.type != status.MIGRATING)
    return Plan(
        (*others, *told, *gone, WriteStatus(msgspec.structs.replace(wanted, migration=None, conditions=conditions)))
    )


def _migration(state: VMState, claim: Claim) -> VirtualMachineMigration | None:
    return next((item for item in state.circumstances.migrations if item.metadata.uid == claim.uid), None)


def _why(state: VMState, claim: Claim) -> str:
    if state.lost_in_post_copy:
        return "the VM was lost while its memory was on both nodes"
    if state.incarnation == claim.target:
        return f"the VM runs in pod {state.name(claim.target)}"
    return "the move is undone" if claim.aborting is not None else f"incarnation {state.incarnation} is the VM"


def _follow(state: VMState, claim: Claim) -> tuple[Action, ...]:
    """Publish the state of the VM's pod; of a lost one, that the next follows the end of the move."""
    pod = state.current
    if pod is not None:
        return state.publish_pod(pod)
    lost = f"Pod {state.name(state.incarnation)} was lost during migration {claim.name}; a new one follows its end"
    verdict = Verdict(status.READY, status=False, reason="PodNotExists", message=lost)
    write = state.publish(Phase.PENDING, verdict)
    return (*state.confirm_recorded(), *write) if write else ()


def _bring_target(state: VMState, claim: Claim, follow: tuple[Action, ...]) -> Plan:
    """Create the target pod, or give it a new number if the create of this one may have been sent before."""
    circumstances, number = state.circumstances, claim.target
    source = state.current
    if source is None or source.done or source.terminating or state.spec is None:
        return Plan(follow)  # the migration's decision aborts
    if circumstances.target_seen == number or _recorded(state, claim):
        lost = f"{LOST}: target pod {state.name(number)} was deleted before the VM was handed over"
        return Plan((ConfirmPodGone(state.name(number)), _abort(state, claim, lost)))
    if circumstances.create_expected > 0:
        return Plan(follow, requeue_after=circumstances.create_expected)
    if circumstances.create_refusal is not None:
        return Plan((_abort(state, claim, f"{REFUSED}: {circumstances.create_refusal}"),))
    if circumstances.target_given != number:
        again = msgspec.structs.replace(claim, target_incarnation=state.next)
        wanted = msgspec.structs.replace(state.vm.status, migration=again, last_incarnation=state.next)
        return Plan((ConfirmPodGone(state.name(number)), WriteStatus(wanted)))
    body = launcher.live_target(state.vm, claim, source, state.policy)
    return Plan((*follow, CreatePod(name=state.name(number), incarnation=number, body=body)))


def _recorded(state: VMState, claim: Claim) -> bool:
    """Whether the migration's status names the target pod, so that it existed."""
    migration = _migration(state, claim)
    return migration is not None and migration.status.target_pod == state.name(claim.target)


def _abort(state: VMState, claim: Claim, why: str) -> WriteStatus:
    aborting = msgspec.structs.replace(claim, aborting=why)
    return WriteStatus(msgspec.structs.replace(state.vm.status, migration=aborting))


def handed_over(state: VMState, claim: Claim, target: Pod, over: HandOver) -> WriteStatus:
    """Return the status by which the target pod becomes the VM; `state` shows the claimed VM before it.

    `claim` is as it is from then on.
    """
    recorded = state.vm.status
    gap = recorded.incarnation if recorded.incarnation != claim.target - 1 else None
    after = msgspec.structs.replace(
        recorded,
        incarnation=claim.target,
        previous_incarnation=gap,
        last_hand_over=over,
        migration=claim,
        pod_name=target.metadata.name,
        pod_uid=target.metadata.uid,
        node_name=target.spec.node_name,
    )
    vm = msgspec.structs.replace(state.vm, status=after)
    published = VMState(vm, state.view, state.policy, state.circumstances).publish_pod(target)
    return published[0] if published else WriteStatus(after)
