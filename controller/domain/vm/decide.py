"""What to do about one VM: a pure function of what the caches show.

Guarantees, each a promise of docs/design.md:

- at most one live pod per VM: a pod is created only when no other live pod of the VM is known, and a
  replacement only after a live read says that its predecessor's name is free (`CreatePod.predecessor`);
- the incarnation moves only by a guarded status write, only after its pod was seen, and never while a create
  of it may still commit (`Circumstances.hold`);
- a pod is deleted only with its UID and resourceVersion, and only if the VM's UID controls it;
- the same view gives the same plan, and a view at its goal gives an empty one.

Actions of a plan run in order; a guard that does not hold ends the plan, and a later reconcile decides anew.
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
"""Seconds for which a VM waits in silence for the pods of one that had its name before: most go at once."""
CLOCK_SKEW: Final = 5.0
"""Seconds by which the cluster's clock and ours may differ; if they do by more, nobody waits in silence for that."""


def decide(view: View, policy: LauncherPolicy, circumstances: Circumstances) -> Plan:
    """Decide the next step for one VM."""
    vm = view.vm
    leaving = vm is not None and vm.metadata.deletion_timestamp is not None
    # Orphaning is the garbage collector taking our ownerRef away: what it frees is not ours to delete.
    orphaning = vm is not None and leaving and ORPHAN in vm.metadata.finalizers
    evacuation = () if orphaning else _evacuate(view)
    if vm is None:
        return Plan(evacuation or _leftovers(view, view.pods, "its VM is gone"))
    life = Life(vm, view, policy, circumstances)
    if leaving:
        return Plan(evacuation) if evacuation else _leave(life, orphaning=orphaning)
    # What is taken away without grace must be known to have been there, or its name would be used again.
    return Plan(_acknowledge(life) or evacuation) if evacuation else _plan(life)


def _leftovers(view: View, pods: Iterable[Pod], why: str) -> tuple[Action, ...]:
    """Delete what VMs left behind, each pod once a live read agrees that its VM is gone."""
    return tuple(
        action
        for pod in pods
        if (owner := ownership.owner(pod)) is not None and not view.goes(pod)
        for action in (ConfirmVMGone(owner.name, owner.uid), DeletePod(pod, why))
    )


def _evacuate(view: View) -> tuple[Action, ...]:
    """Free pods from nodes that are gone: nobody is left there who would finish their deletion."""
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
    if not life.strangers:
        return plan
    # What a VM that had this name before left behind goes, whatever this one is about; last, since a live read that
    # does not agree ends the plan.
    swept = _leftovers(life.view, (pod for pod in life.strangers if not pod.done), "its VM was replaced")
    return msgspec.structs.replace(plan, actions=(*plan.actions, *swept))


def _next(life: Life) -> Plan:
    if not life.vm.spec.running:
        return _stop(life)
    if life.current is not None:
        return _follow(life, life.current)
    if life.older:
        deletions = _deletions(life.view, life.older, f"incarnation {life.incarnation} replaces it")
        return Plan((*deletions, *life.publish_held(life.older)))
    if life.spec_problem is not None:
        verdict = Verdict(status.READY, status=False, reason=status.INVALID_SPEC, message=life.spec_problem)
        return _without_pod(life, Phase.FAILED, verdict)
    if life.used_up:
        return _replace(life, "Pod was deleted", confirm=True)
    return _start(life)


def _leave(life: Life, *, orphaning: bool) -> Plan:
    """Delete the pods of a VM that is being deleted. Only of one that somebody holds the status tells so.

    Whatever else is deleted is gone in a moment, and needs no write.
    """
    deletions = () if orphaning else _deletions(life.view, life.own, "its VM is being deleted")
    holders = status.strangers_finalizers(life.vm)
    if not holders:
        return Plan(deletions)
    if life.own:
        return Plan((*deletions, *life.publish_ending()))
    message = f"The VM is being deleted, and held by {status.listed('finalizer', holders)}"
    verdict = Verdict(status.READY, status=False, reason="Terminating", message=message)
    return _without_pod(life, Phase.STOPPED, verdict)


def _without_pod(life: Life, phase: Phase, verdict: Verdict) -> Plan:
    """Publish that no pod is to come; while one may, only why: its labels may be gone before it is seen."""
    write = life.publish(phase, verdict)
    if write and life.circumstances.hold > 0:
        return Plan(life.publish_as_it_was(verdict), requeue_after=life.circumstances.hold)
    return Plan((*life.confirm_recorded(), *write) if write else ())


def _acknowledge(life: Life) -> tuple[WriteStatus, ...]:
    """Record this incarnation's pod, if it is not recorded yet."""
    pod = life.current
    known = pod is None or pod.metadata.uid == life.vm.status.pod_uid
    return () if pod is None or known else life.publish_pod(pod)


def _stop(life: Life) -> Plan:
    verdict = Verdict(status.READY, status=False, reason="Stopped", message="spec.running is false")
    if life.own:
        return Plan((*_deletions(life.view, life.own, "the VM is stopped"), *life.publish_ending()))
    if life.vm.status.phase == Phase.STOPPED:
        return Plan(life.publish(Phase.STOPPED, verdict))
    if life.used_up and life.circumstances.hold > 0:
        return Plan(requeue_after=life.circumstances.hold)
    # The next life gets the next number now, so that starting again needs no further write.
    incarnation = life.incarnation + 1 if life.used_up else life.incarnation
    write = life.publish(Phase.STOPPED, verdict, incarnation=incarnation)
    return Plan((*life.confirm_recorded(), *write))


def _follow(life: Life, pod: Pod) -> Plan:
    """Publish the pod of this incarnation, keep its metadata current, replace it when it is done."""
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
        # The write comes back as an event, and with it the wait.
        return Plan((*housekeeping, *life.publish_pod(pod)))
    return _replace(life, "The failed pod is replaced", confirm=False)


def _arrives(life: Life, pod: Pod) -> bool:
    """Whether it runs as the target of a migration, whose end will tell so."""
    return life.vm.status.migration is not None and status.pod_phase(pod) is Phase.RUNNING


def _ends_here(life: Life, pod: Pod) -> bool:
    """Whether a migration asks for the next life: its source's turn has come, or its target cannot be placed."""
    claim = life.vm.status.migration
    if claim is None:
        return False
    if life.incarnation == claim.source_incarnation:
        return True
    return claim.rollback and life.incarnation == claim.source_incarnation + 1 and pod.spec.node_name is None


def _replace(life: Life, why: str, *, confirm: bool) -> Plan:
    """Move to the next incarnation; the reconcile after this one deletes what is left and creates."""
    failure = life.vm.status.start_failure
    retry_at = times.parse_timestamp(failure.retry_after_timestamp) if failure is not None else None
    backoff = (retry_at - life.circumstances.now).total_seconds() if retry_at is not None else 0.0
    backoff = min(backoff, status.LONGEST_START_BACKOFF)  # a later time is nobody's word of ours
    wait = max(backoff, life.circumstances.hold)
    if wait > 0:
        if life.current is not None:
            return Plan(life.publish_pod(life.current), requeue_after=wait)
        # Failed stays Failed until its retry; otherwise this is what Pending means: a pod is to be created.
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
    """No pod of this incarnation yet: wait until a namesake's pods are gone, then create."""
    if living := tuple(pod for pod in life.strangers if not pod.done):
        return _await(life, living)
    if life.spec is None or life.used is None:  # pragma: no cover - plan() has answered this before
        return NOTHING
    refusal = life.circumstances.create_refusal
    if refusal is not None:
        verdict = Verdict(status.READY, status=False, reason=status.FAILED_CREATE, message=refusal)
        if published := life.publish_as_it_was(verdict):
            return Plan(published, tells_refusal=True)
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
    """Wait until the pods are gone of a VM that had this name before; say so if that takes long."""
    created = times.parse_timestamp(life.vm.metadata.creation_timestamp) or life.circumstances.now
    patience = NAMESAKE_PATIENCE - (life.circumstances.now - created).total_seconds()
    if 0 < patience <= NAMESAKE_PATIENCE + CLOCK_SKEW:
        return Plan(requeue_after=patience)
    pod = min(predecessors, key=lambda pod: pod.metadata.name)
    message = f"Pod {pod.metadata.name} of the VM that had this name before goes first{status.held(pod)}"
    verdict = Verdict(status.READY, status=False, reason=status.NAMESAKES_POD, message=message)
    return Plan(life.publish_as_it_was(verdict))


def _placement(life: Life) -> launcher.Placement:
    """Where the next pod may go: a migration narrows it for the life that follows its source."""
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
