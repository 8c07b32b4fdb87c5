"""The decision about one VM: a pure function of what the caches show.

Guarantees, each a promise of docs/design.md:

- at most one live pod per VM: a pod is created only when no other live pod of the VM is known, and a
  replacement only after a live read confirms that its predecessor no longer exists (`CreatePod.predecessor`);
- the incarnation changes only by a guarded status write, only after its pod was seen, and never while a create
  of it may still commit (`Circumstances.create_expected`);
- a pod is deleted only with its UID and resourceVersion, and only if the VM's UID controls it;
- the same view gives the same plan, and a view at its goal gives an empty one.

Actions of a plan run in order; a guard that fails ends the plan, and a later reconcile decides again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from controller.domain import ownership
from controller.domain.objects import Claim
from controller.domain.vm import boot, inherited, launcher, live, placement, records, start_backoff, status
from controller.domain.vm.placement import Placement
from controller.domain.vm.plan import (
    NOTHING,
    Action,
    Circumstances,
    ConfirmNodeGone,
    ConfirmVMGone,
    CreatePod,
    DeletePod,
    PatchPod,
    Plan,
    View,
    WriteStatus,
)
from controller.domain.vm.policy import LauncherPolicy
from controller.domain.vm.state import VMState
from controller.domain.vm.status import Phase, Verdict
from controller.kube import times
from controller.kube.kinds import Pod

ORPHAN: Final = "orphan"
NAMESAKE_PATIENCE: Final = 5.0
"""Seconds for which a VM waits for the pods of its namesake before its status says so: most are deleted by then."""


def decide(view: View, policy: LauncherPolicy, circumstances: Circumstances) -> Plan:
    """Decide the next step for one VM."""
    vm = view.vm
    deleting = vm is not None and vm.metadata.deletion_timestamp is not None
    # Orphaning: the garbage collector removes our ownerRef, and the pods that it frees are not ours to delete.
    orphaning = vm is not None and deleting and ORPHAN in vm.metadata.finalizers
    evacuation = () if orphaning else _evacuate(view)
    if vm is None:
        return Plan(evacuation or _leftovers(view, view.pods, "its VM no longer exists"))
    state = VMState(vm, view, policy, circumstances)
    if deleting:
        return Plan(evacuation) if evacuation else _terminate(state, orphaning=orphaning)
    # Before a pod is force-deleted, the status records that it was seen; otherwise its name could be used again.
    return Plan(_acknowledge(state) or evacuation) if evacuation else _plan(state)


def _leftovers(view: View, pods: Iterable[Pod], why: str) -> tuple[Action, ...]:
    """Delete the pods of VMs that no longer exist, each after a live read confirms that its VM is deleted."""
    return tuple(
        action
        for pod in pods
        if (owner := ownership.owner(pod)) is not None and not view.deletion_begun(pod)
        for action in (ConfirmVMGone(owner.name, owner.uid), DeletePod(pod, why))
    )


def _evacuate(view: View) -> tuple[Action, ...]:
    """Force-delete the pods of nodes that no longer exist: no kubelet is left to finish their deletion."""
    return tuple(
        action
        for pod in view.pods
        if pod.spec.node_name in view.lost_nodes
        and pod.metadata.uid not in view.asked
        and not (pod.terminating and pod.metadata.deletion_grace_period_seconds == 0)
        for action in (
            ConfirmNodeGone(pod.spec.node_name),
            DeletePod(pod, f"its node {pod.spec.node_name} no longer exists", force=True),
        )
    )


def _plan(state: VMState) -> Plan:
    plan = _next(state)
    if not state.foreign:
        return plan
    # The pods of a namesake are deleted in any case. Their deletion comes last, since a live read that does not confirm
    # it ends the plan.
    swept = _leftovers(state.view, (pod for pod in state.foreign if not pod.done), "its VM was replaced")
    return msgspec.structs.replace(plan, actions=(*plan.actions, *swept))


def _next(state: VMState) -> Plan:
    if not state.vm.spec.running:
        return _stop(state)
    if state.live is not None:
        return _move(state, state.live)
    if state.current is not None:
        return _follow(state, state.current)
    if state.superfluous:
        deletions = state.view.deletions(state.superfluous, f"incarnation {state.incarnation} replaces it")
        return Plan((*deletions, *state.publish_blocked(state.superfluous)))
    return _begin(state)


def _begin(state: VMState) -> Plan:
    """Return the next step of a VM that is to run and has no pod."""
    if state.spec_problem is not None:
        verdict = Verdict(status.READY, status=False, reason=status.INVALID_SPEC, message=state.spec_problem)
        return _without_pod(state, Phase.FAILED, verdict)
    if state.used_up:
        return _replace(state, "Pod was deleted", confirm=True)
    return _start(state)


def _move(state: VMState, claim: Claim) -> Plan:
    """Return the next step of a VM that moves live; the metadata of its pod is kept current meanwhile."""
    plan = live.decide(state, claim)
    pod = state.current
    patches = _refresh(state, pod) if pod is not None and not pod.done else ()
    boots = boot.left(pod, state.circumstances.now) if pod is not None else 0.0
    again = min(filter(None, (plan.requeue_after, boots)), default=None)
    return msgspec.structs.replace(plan, actions=(*patches, *plan.actions), requeue_after=again)


def _terminate(state: VMState, *, orphaning: bool) -> Plan:
    """Delete the pods of a VM that is being deleted; publish that only if a foreign finalizer delays the deletion.

    Without one the VM no longer exists a moment later, and a status write is not worth it.
    """
    deletions = () if orphaning else state.view.deletions(state.own, "its VM is being deleted")
    finalizers = status.foreign_finalizers(state.vm)
    if not finalizers:
        return Plan(deletions)
    if state.own:
        return Plan((*deletions, *state.publish_ending()))
    if state.live is not None:
        return live.release(state, state.live)
    message = f"The VM is being deleted, and held by {status.listed('finalizer', finalizers)}"
    verdict = Verdict(status.READY, status=False, reason="Terminating", message=message)
    return _without_pod(state, Phase.STOPPED, verdict)


def _without_pod(state: VMState, phase: Phase, verdict: Verdict) -> Plan:
    """Publish that no pod follows. While a create may still commit, publish only the reason.

    The labels of the pod may be removed before the watch shows it.
    """
    write = state.publish(phase, verdict)
    if write and state.circumstances.create_expected > 0:
        return Plan(state.publish_as_it_was(verdict), requeue_after=state.circumstances.create_expected)
    return Plan((*state.confirm_recorded(), *write) if write else ())


def _acknowledge(state: VMState) -> tuple[WriteStatus, ...]:
    """Record this incarnation's pod in the status, if it is not recorded yet."""
    pod = state.current
    recorded = pod is None or pod.metadata.uid == state.vm.status.pod_uid
    return () if pod is None or recorded else state.publish_pod(pod)


def _stop(state: VMState) -> Plan:
    verdict = Verdict(status.READY, status=False, reason="Stopped", message="spec.running is false")
    if state.own:
        return Plan((*state.view.deletions(state.own, "the VM is stopped"), *state.publish_ending()))
    if state.live is None and state.vm.status.phase == Phase.STOPPED:
        return Plan(state.publish(Phase.STOPPED, verdict))
    if state.used_up and state.circumstances.create_expected > 0:
        return Plan(requeue_after=state.circumstances.create_expected)
    # The next incarnation gets its number now, so that starting again needs no further write.
    incarnation = state.next if state.used_up else state.incarnation
    write = state.publish(Phase.STOPPED, verdict, incarnation=incarnation)
    stopped: tuple[Action, ...] = (*state.confirm_recorded(), *write)
    return Plan(stopped) if state.live is None else live.release(state, state.live, last=stopped)


def _follow(state: VMState, pod: Pod) -> Plan:
    """Publish the state of this incarnation's pod, keep its metadata current, and replace it when it has ended."""
    housekeeping = state.view.deletions(state.superfluous, f"incarnation {state.incarnation} replaces it")
    if _is_to_end(state, pod):
        return _replace(state, "The VM migrates", confirm=False)
    if not pod.done or pod.terminating:
        now = state.circumstances.now
        silence = state.until_silence(pod) if pod.spec.node_name is None else None
        starting = status.progressing(pod) and silence != 0
        return Plan(
            (*housekeeping, *_refresh(state, pod), *state.publish_pod(pod)),
            requeue_after=silence or boot.left(pod, now) or None,
            progressing=(starting or _runs_as_target(state, pod)) and not status.says_no_pod(state.vm),
        )
    failure = state.failure(pod)
    if failure != state.vm.status.start_failure:
        # The write comes back as a watch event; the backoff is waited for in that reconcile.
        return Plan((*housekeeping, *state.publish_pod(pod)))
    return _replace(state, "The failed pod is replaced", confirm=False)


def _runs_as_target(state: VMState, pod: Pod) -> bool:
    """Whether the pod runs as the target of a migration, at whose end its status is published."""
    return state.vm.status.migration is not None and status.pod_phase(pod) is Phase.RUNNING


def _is_to_end(state: VMState, pod: Pod) -> bool:
    """Whether a migration requires the next incarnation: this one is its source, or a target that is rolled back."""
    claim = state.vm.status.migration
    if claim is None:
        return False
    if state.incarnation == claim.source_incarnation:
        return True
    return claim.rollback and state.incarnation == claim.target and pod.spec.node_name is None


def _replace(state: VMState, why: str, *, confirm: bool) -> Plan:
    """Begin the next incarnation; the next reconcile deletes the remaining pods and creates the new one."""
    failure = state.vm.status.start_failure
    retry_at = times.parse_timestamp(failure.retry_after_timestamp) if failure is not None else None
    backoff = (retry_at - state.circumstances.now).total_seconds() if retry_at is not None else 0.0
    backoff = min(backoff, start_backoff.LONGEST)  # another client wrote a later time
    wait = max(backoff, state.circumstances.create_expected)
    if wait > 0:
        if state.current is not None:
            return Plan(state.publish_pod(state.current), requeue_after=wait)
        # Failed stays Failed until the retry; otherwise the phase is Pending: a pod is to be created.
        failed = state.vm.status.phase == Phase.FAILED
        phase = Phase.FAILED if failed else Phase.PENDING
        absent = Verdict(status.READY, status=False, reason="PodNotExists", message=f"{why}; a new one follows")
        return Plan(state.publish(phase, absent), requeue_after=wait)
    claim = state.vm.status.migration
    ends = claim is not None and state.incarnation == claim.source_incarnation
    incarnation = claim.target if claim is not None and ends else state.next
    verdict = Verdict(
        status.READY,
        status=False,
        reason="PodNotExists",
        message=f"{why}; pod {state.name(incarnation)} takes its place",
    )
    write = state.publish(Phase.SCHEDULING, verdict, incarnation=incarnation)
    return Plan((*(state.confirm_recorded() if confirm else ()), *write))


def _start(state: VMState) -> Plan:
    """Create this incarnation's pod, once the pods of a namesake are deleted."""
    if alive := tuple(pod for pod in state.foreign if not pod.done):
        return _await(state, alive)
    if state.spec is None or state.used is None:  # pragma: no cover - _next() returns before for a spec problem
        return NOTHING
    refusal = state.circumstances.create_refusal
    if refusal is not None:
        verdict = Verdict(status.READY, status=False, reason=status.FAILED_CREATE, message=refusal)
        if published := state.publish_as_it_was(verdict):
            return Plan(published, reports_refusal=True)
    return Plan(
        (
            CreatePod(
                name=state.name(state.incarnation),
                incarnation=state.incarnation,
                body=launcher.manifest(
                    state.vm,
                    state.incarnation,
                    state.spec,
                    state.used.shares,
                    state.policy,
                    where=_placement(state),
                ),
                predecessor=state.name(state.previous) if state.previous is not None else None,
            ),
        )
    )


def _await(state: VMState, namesakes: tuple[Pod, ...]) -> Plan:
    """Wait until the pods of a namesake are deleted; publish that if it takes longer than `NAMESAKE_PATIENCE`."""
    created = times.parse_timestamp(state.vm.metadata.creation_timestamp) or state.circumstances.now
    patience = NAMESAKE_PATIENCE - (state.circumstances.now - created).total_seconds()
    if 0 < patience <= NAMESAKE_PATIENCE + times.CLOCK_SKEW:
        return Plan(requeue_after=patience)
    pod = min(namesakes, key=lambda pod: pod.metadata.name)
    message = f"Pod {pod.metadata.name} of the previous VM of this name is deleted first{status.blocker(pod)}"
    verdict = Verdict(status.READY, status=False, reason=status.NAMESAKES_POD, message=message)
    return Plan(state.publish_as_it_was(verdict))


def _placement(state: VMState) -> Placement:
    """Return the placement of the next pod; a migration constrains that of the incarnation after its source."""
    claim = state.vm.status.migration
    if claim is None or claim.rollback or state.incarnation != claim.target:
        avoided = records.avoided(state.circumstances.migrations, state.vm.metadata.uid, state.previous)
        return placement.at_start(state.vm, state.incarnation, rather_not=avoided)
    return placement.placement_of(claim)


def _refresh(state: VMState, pod: Pod) -> tuple[PatchPod, ...]:
    """Bring a pod's labels and usage annotations up to date, in one patch, if any differs."""
    if state.used is None or pod.terminating:
        return ()
    wanted_annotations = launcher.usage_annotations(state.used.shares, state.policy.reference)
    stale_labels = launcher.label_changes(state.vm, pod)
    stale_annotations = {
        **inherited.hint_changes(state.vm, pod),
        **{k: v for k, v in wanted_annotations.items() if pod.metadata.annotations.get(k) != v},
    }
    return (PatchPod(pod, stale_labels, stale_annotations),) if stale_labels or stale_annotations else ()
