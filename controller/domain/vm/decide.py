"""What to do about one VM: a pure function of what the caches show.

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
from controller.domain.vm import launcher, records, status
from controller.domain.vm.launcher import LauncherPolicy
from controller.domain.vm.life import Life
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
from controller.domain.vm.status import Phase, Verdict
from controller.kube import times
from controller.kube.kinds import Pod

ORPHAN: Final = "orphan"
NAMESAKE_PATIENCE: Final = 5.0
"""Seconds for which a VM waits for the pods of its namesake before its status says so: most are deleted by then."""
CLOCK_SKEW: Final = 5.0
"""Seconds by which the cluster's clock and ours may differ; beyond that, the status says so at once."""


def decide(view: View, policy: LauncherPolicy, circumstances: Circumstances) -> Plan:
    """Decide the next step for one VM."""
    vm = view.vm
    leaving = vm is not None and vm.metadata.deletion_timestamp is not None
    # Orphaning: the garbage collector removes our ownerRef, and the pods that it frees are not ours to delete.
    orphaning = vm is not None and leaving and ORPHAN in vm.metadata.finalizers
    evacuation = () if orphaning else _evacuate(view)
    if vm is None:
        return Plan(evacuation or _leftovers(view, view.pods, "its VM is gone"))
    life = Life(vm, view, policy, circumstances)
    if leaving:
        return Plan(evacuation) if evacuation else _leave(life, orphaning=orphaning)
    # Before a pod is force-deleted, the status records that it was seen; otherwise its name could be used again.
    return Plan(_acknowledge(life) or evacuation) if evacuation else _plan(life)


def _leftovers(view: View, pods: Iterable[Pod], why: str) -> tuple[Action, ...]:
    """Delete the pods of VMs that no longer exist, each after a live read confirms that its VM is deleted."""
    return tuple(
        action
        for pod in pods
        if (owner := ownership.owner(pod)) is not None and not view.goes(pod)
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
            DeletePod(pod, f"its node {pod.spec.node_name} is gone", force=True),
        )
    )


def _deletions(view: View, pods: tuple[Pod, ...], why: str) -> tuple[DeletePod, ...]:
    return tuple(DeletePod(pod, why) for pod in pods if not view.goes(pod))


def _plan(life: Life) -> Plan:
    plan = _next(life)
    if not life.foreign:
        return plan
    # The pods of a namesake are deleted in any case. Their deletion comes last, since a live read that does not confirm
    # it ends the plan.
    swept = _leftovers(life.view, (pod for pod in life.foreign if not pod.done), "its VM was replaced")
    return msgspec.structs.replace(plan, actions=(*plan.actions, *swept))


def _next(life: Life) -> Plan:
    if not life.vm.spec.running:
        return _stop(life)
    if life.current is not None:
        return _follow(life, life.current)
    if life.older:
        deletions = _deletions(life.view, life.older, f"incarnation {life.incarnation} replaces it")
        return Plan((*deletions, *life.publish_blocked(life.older)))
    if life.spec_problem is not None:
        verdict = Verdict(status.READY, status=False, reason=status.INVALID_SPEC, message=life.spec_problem)
        return _without_pod(life, Phase.FAILED, verdict)
    if life.used_up:
        return _replace(life, "Pod was deleted", confirm=True)
    return _start(life)


def _leave(life: Life, *, orphaning: bool) -> Plan:
    """Delete the pods of a VM that is being deleted; publish that only if a foreign finalizer delays the deletion.

    Without one the VM no longer exists a moment later, and a status write is not worth it.
    """
    deletions = () if orphaning else _deletions(life.view, life.own, "its VM is being deleted")
    holders = status.foreign_finalizers(life.vm)
    if not holders:
        return Plan(deletions)
    if life.own:
        return Plan((*deletions, *life.publish_ending()))
    message = f"The VM is being deleted, and held by {status.listed('finalizer', holders)}"
    verdict = Verdict(status.READY, status=False, reason="Terminating", message=message)
    return _without_pod(life, Phase.STOPPED, verdict)


def _without_pod(life: Life, phase: Phase, verdict: Verdict) -> Plan:
    """Publish that no pod follows. While a create may still commit, publish only the reason.

    The labels of the pod may be removed before the watch shows it.
    """
    write = life.publish(phase, verdict)
    if write and life.circumstances.create_expected > 0:
        return Plan(life.publish_as_it_was(verdict), requeue_after=life.circumstances.create_expected)
    return Plan((*life.confirm_recorded(), *write) if write else ())


def _acknowledge(life: Life) -> tuple[WriteStatus, ...]:
    """Record this incarnation's pod in the status, if it is not recorded yet."""
    pod = life.current
    known = pod is None or pod.metadata.uid == life.vm.status.pod_uid
    return () if pod is None or known else life.publish_pod(pod)


def _stop(life: Life) -> Plan:
    verdict = Verdict(status.READY, status=False, reason="Stopped", message="spec.running is false")
    if life.own:
        return Plan((*_deletions(life.view, life.own, "the VM is stopped"), *life.publish_ending()))
    if life.vm.status.phase == Phase.STOPPED:
        return Plan(life.publish(Phase.STOPPED, verdict))
    if life.used_up and life.circumstances.create_expected > 0:
        return Plan(requeue_after=life.circumstances.create_expected)
    # The next incarnation gets its number now, so that starting again needs no further write.
    incarnation = life.incarnation + 1 if life.used_up else life.incarnation
    write = life.publish(Phase.STOPPED, verdict, incarnation=incarnation)
    return Plan((*life.confirm_recorded(), *write))


def _follow(life: Life, pod: Pod) -> Plan:
    """Publish the state of this incarnation's pod, keep its metadata current, replace it when it has ended."""
    housekeeping = _deletions(life.view, life.older, f"incarnation {life.incarnation} replaces it")
    if _ends_here(life, pod):
        return _replace(life, "The VM migrates", confirm=False)
    if not pod.done or pod.terminating:
        return Plan(
            (*housekeeping, *_refresh(life, pod), *life.publish_pod(pod)),
            progressing=(status.progressing(pod) or _arrives(life, pod)) and not status.says_no_pod(life.vm),
        )
    failure = life.failure(pod)
    if failure != life.vm.status.start_failure:
        # The write comes back as a watch event; the backoff is waited for in that reconcile.
        return Plan((*housekeeping, *life.publish_pod(pod)))
    return _replace(life, "The failed pod is replaced", confirm=False)


def _arrives(life: Life, pod: Pod) -> bool:
    """Whether the pod runs as the target of a migration, whose end publishes that."""
    return life.vm.status.migration is not None and status.pod_phase(pod) is Phase.RUNNING


def _ends_here(life: Life, pod: Pod) -> bool:
    """Whether a migration asks for the next incarnation: its source is to end, or its target cannot be placed."""
    claim = life.vm.status.migration
    if claim is None:
        return False
    if life.incarnation == claim.source_incarnation:
        return True
    return claim.rollback and life.incarnation == claim.source_incarnation + 1 and pod.spec.node_name is None


def _replace(life: Life, why: str, *, confirm: bool) -> Plan:
    """Go to the next incarnation; the next reconcile deletes the remaining pods and creates the new one."""
    failure = life.vm.status.start_failure
    retry_at = times.parse_timestamp(failure.retry_after_timestamp) if failure is not None else None
    backoff = (retry_at - life.circumstances.now).total_seconds() if retry_at is not None else 0.0
    backoff = min(backoff, status.LONGEST_START_BACKOFF)  # another client wrote a later time
    wait = max(backoff, life.circumstances.create_expected)
    if wait > 0:
        if life.current is not None:
            return Plan(life.publish_pod(life.current), requeue_after=wait)
        # Failed stays Failed until the retry; otherwise the phase is Pending: a pod is to be created.
        failed = life.vm.status.phase == Phase.FAILED
        phase = Phase.FAILED if failed else Phase.PENDING
        gone = Verdict(status.READY, status=False, reason="PodNotExists", message=f"{why}; a new one follows")
        return Plan(life.publish(phase, gone), requeue_after=wait)
    incarnation = life.incarnation + 1
    verdict = Verdict(
        status.READY,
        status=False,
        reason="PodNotExists",
        message=f"{why}; pod {life.name(incarnation)} takes its place",
    )
    write = life.publish(Phase.SCHEDULING, verdict, incarnation=incarnation)
    return Plan((*(life.confirm_recorded() if confirm else ()), *write))


def _start(life: Life) -> Plan:
    """Create this incarnation's pod, once the pods of a namesake are deleted."""
    if living := tuple(pod for pod in life.foreign if not pod.done):
        return _await(life, living)
    if life.spec is None or life.used is None:  # pragma: no cover - _next() returns before for a spec problem
        return NOTHING
    refusal = life.circumstances.create_refusal
    if refusal is not None:
        verdict = Verdict(status.READY, status=False, reason=status.FAILED_CREATE, message=refusal)
        if published := life.publish_as_it_was(verdict):
            return Plan(published, reports_refusal=True)
    return Plan(
        (
            CreatePod(
                name=life.name(life.incarnation),
                incarnation=life.incarnation,
                body=launcher.manifest(
                    life.vm,
                    life.incarnation,
                    life.spec,
                    life.used.shares,
                    life.policy,
                    placement=_placement(life),
                ),
                predecessor=life.name(life.incarnation - 1) if life.incarnation > 0 else None,
            ),
        )
    )


def _await(life: Life, predecessors: tuple[Pod, ...]) -> Plan:
    """Wait until the pods of a namesake are deleted; publish that if it takes longer than `NAMESAKE_PATIENCE`."""
    created = times.parse_timestamp(life.vm.metadata.creation_timestamp) or life.circumstances.now
    patience = NAMESAKE_PATIENCE - (life.circumstances.now - created).total_seconds()
    if 0 < patience <= NAMESAKE_PATIENCE + CLOCK_SKEW:
        return Plan(requeue_after=patience)
    pod = min(predecessors, key=lambda pod: pod.metadata.name)
    message = f"Pod {pod.metadata.name} of the VM that had this name before goes first{status.held(pod)}"
    verdict = Verdict(status.READY, status=False, reason=status.NAMESAKES_POD, message=message)
    return Plan(life.publish_as_it_was(verdict))


def _placement(life: Life) -> launcher.Placement:
    """Return the placement of the next pod: a migration narrows it for the incarnation after its source."""
    claim = life.vm.status.migration
    if claim is None or claim.rollback or life.incarnation != claim.source_incarnation + 1:
        return launcher.Placement(
            rather_not=records.avoided(life.circumstances.migrations, life.vm.metadata.uid, life.incarnation)
        )
    return launcher.placement_of(claim)


def _refresh(life: Life, pod: Pod) -> tuple[PatchPod, ...]:
    """Bring a pod's labels and usage annotations up to date, in one patch, if any differs."""
    if life.used is None or pod.terminating:
        return ()
    wanted_annotations = launcher.usage_annotations(life.used.shares, life.policy.reference)
    stale_labels = launcher.label_changes(life.vm, pod)
    stale_annotations = {k: v for k, v in wanted_annotations.items() if pod.metadata.annotations.get(k) != v}
    return (PatchPod(pod, stale_labels, stale_annotations),) if stale_labels or stale_annotations else ()
