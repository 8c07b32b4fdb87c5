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
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from controller.domain import names, ownership
from controller.domain.objects import StartFailure, VirtualMachine, VirtualMachineMigration, VMStatus
from controller.domain.ratio import RatioError
from controller.domain.vm import launcher, records, status
from controller.domain.vm.launcher import LauncherPolicy, Shares
from controller.domain.vm.status import Phase, Step, Verdict
from controller.kube import times
from controller.kube.kinds import Pod

ORPHAN: Final = "orphan"
NAMESAKE_PATIENCE: Final = 5.0
"""Seconds for which a VM waits in silence for the pods of one that had its name before: most go at once."""
CLOCK_SKEW: Final = 5.0
"""Seconds by which the cluster's clock and ours may differ; if they do by more, nobody waits in silence for that."""
HISTORY_LIMIT: Final = 50
"""Transitions kept in `.status.conditions`."""


class View(msgspec.Struct, frozen=True):
    """What the caches show of one `namespace/name`: the VM, and every pod that names it as its controller.

    `lost_nodes` are those of the pods' nodes that the cache of nodes does not have. `asked`: UIDs of pods that we asked
    to delete without getting an answer; it may be under way.
    """

    vm: VirtualMachine | None
    pods: tuple[Pod, ...] = ()
    lost_nodes: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()

    def goes(self, pod: Pod) -> bool:
        """Whether nobody need ask for a pod's deletion: it has begun, or may have."""
        return pod.terminating or pod.metadata.uid in self.asked


class Circumstances(msgspec.Struct, frozen=True):
    """What neither the VM nor its pods show.

    `hold`: seconds during which the incarnation must not move. `seen`: the life whose pod was seen, but whose status is
    not published yet.
    """

    now: datetime
    jitter: float = 0.0
    hold: float = 0.0
    create_refusal: str | None = None
    seen: int | None = None
    migrations: tuple[VirtualMachineMigration, ...] = ()


class CreatePod(msgspec.Struct, frozen=True):
    """Create the pod of one incarnation, after a live read says that `predecessor` is gone."""

    name: str
    incarnation: int
    body: dict[str, Any]
    predecessor: str | None = None


class DeletePod(msgspec.Struct, frozen=True):
    """Delete exactly this pod in exactly this state (UID and resourceVersion); `force` leaves it no grace."""

    pod: Pod
    why: str
    force: bool = False


class ConfirmVMGone(msgspec.Struct, frozen=True):
    """Go on only if a live read says that the VM with this UID exists no more."""

    name: str
    uid: str


class ConfirmNodeGone(msgspec.Struct, frozen=True):
    """Go on only if a live read says that this node exists no more."""

    name: str


class ConfirmPodGone(msgspec.Struct, frozen=True):
    """Go on only if a live read says that no pod of this VM has this name; give a hidden one its labels back."""

    name: str


class PatchPod(msgspec.Struct, frozen=True):
    """Set metadata on this pod (UID and resourceVersion guarded); a label that is None goes."""

    pod: Pod
    labels: dict[str, str | None]
    annotations: dict[str, str]


class WriteStatus(msgspec.Struct, frozen=True):
    """Replace the VM's status if the VM is still as the cache shows it."""

    status: VMStatus


Act: TypeAlias = CreatePod | DeletePod | ConfirmVMGone | ConfirmNodeGone | ConfirmPodGone | PatchPod
Action: TypeAlias = Act | WriteStatus


class Plan(msgspec.Struct, frozen=True):
    """Actions in order, and when to look again although nothing happened (seconds).

    `tells_refusal`: what is written is why the pod could not be made; after that it is tried again. `progressing`: the
    pod is on its way to Running, or runs as a migration's target, so that what its status says now will soon be past,
    or told by the migration's end.
    """

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    progressing: bool = False
    tells_refusal: bool = False

    @property
    def wants_pod(self) -> bool:
        """Whether a pod is to be made."""
        return self.tells_refusal or any(isinstance(action, CreatePod) for action in self.actions)


NOTHING: Final = Plan()


def decide(view: View, policy: LauncherPolicy, circumstances: Circumstances) -> Plan:
    """Decide the next step for one VM."""
    vm = view.vm
    leaving = vm is not None and vm.metadata.deletion_timestamp is not None
    # Orphaning is the garbage collector taking our ownerRef away: what it frees is not ours to delete.
    orphaning = vm is not None and leaving and ORPHAN in vm.metadata.finalizers
    evacuation = () if orphaning else _evacuate(view)
    if vm is None:
        return Plan(evacuation or _leftovers(view, view.pods, "its VM is gone"))
    life = _Life(vm, view, policy, circumstances)
    if leaving:
        return Plan(evacuation) if evacuation else life.leave(orphaning=orphaning)
    # What is taken away without grace must be known to have been there, or its name would be used again.
    return Plan(life.acknowledge() or evacuation) if evacuation else life.plan()


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


class _Life:
    """One decision about a VM that exists. Holds what its branches share; lives for one call."""

    def __init__(
        self,
        vm: VirtualMachine,
        view: View,
        policy: LauncherPolicy,
        circumstances: Circumstances,
    ) -> None:
        self.vm = vm
        self.view = view
        self.policy = policy
        self.circumstances = circumstances
        self.now = times.timestamp(circumstances.now)
        self.own = own = tuple(pod for pod in view.pods if ownership.belongs_to(pod, vm))
        all_ours = len(own) == len(view.pods)
        self.strangers = () if all_ours else tuple(pod for pod in view.pods if not ownership.belongs_to(pod, vm))
        lives = [ownership.incarnation(pod) for pod in own]
        # A wiped status must not restart the count below a pod that exists.
        self.incarnation = max((vm.status.incarnation or 0, *(life for life in lives if life is not None)))
        self.current = own[lives.index(self.incarnation)] if self.incarnation in lives else None
        self.older = tuple(pod for pod in own if pod is not self.current)
        self.spec_problem: str | None = None
        self.spec: Shares | None = None
        self.used: launcher.Consumption | None = None
        try:
            self.spec = launcher.requested(vm)
            self.used = launcher.consumption(vm, self.spec)
        except RatioError as error:
            self.spec_problem = str(error)

    # --- branches ----------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        plan = self._next()
        if not self.strangers:
            return plan
        # What a VM that had this name before left behind goes, whatever this one is about; last, since a live read that
        # does not agree ends the plan.
        swept = _leftovers(self.view, (pod for pod in self.strangers if not pod.done), "its VM was replaced")
        return msgspec.structs.replace(plan, actions=(*plan.actions, *swept))

    def _next(self) -> Plan:
        if not self.vm.spec.running:
            return self._stop()
        if self.current is not None:
            return self._follow(self.current)
        if self.older:
            deletions = _deletions(self.view, self.older, f"incarnation {self.incarnation} replaces it")
            return Plan((*deletions, *self._publish_held(self.older)))
        if self.spec_problem is not None:
            verdict = Verdict(status.READY, status=False, reason=status.INVALID_SPEC, message=self.spec_problem)
            return self._without_pod(Phase.FAILED, verdict)
        if self._used_up:
            return self._replace("Pod was deleted", confirm=True)
        return self._start()

    def leave(self, *, orphaning: bool) -> Plan:
        """Delete the pods of a VM that is being deleted. Only of one that somebody holds the status tells so.

        Whatever else is deleted is gone in a moment, and needs no write.
        """
        deletions = () if orphaning else _deletions(self.view, self.own, "its VM is being deleted")
        holders = status.strangers_finalizers(self.vm)
        if not holders:
            return Plan(deletions)
        if self.own:
            return Plan((*deletions, *self._publish_ending()))
        message = f"The VM is being deleted, and held by {status.listed('finalizer', holders)}"
        verdict = Verdict(status.READY, status=False, reason="Terminating", message=message)
        return self._without_pod(Phase.STOPPED, verdict)

    def _without_pod(self, phase: Phase, verdict: Verdict) -> Plan:
        """Publish that no pod is to come; while one may, only why: its labels may be gone before it is seen."""
        write = self._publish(phase, verdict, steps=(Step(phase, self.now),))
        if write and self.circumstances.hold > 0:
            return Plan(self._publish_as_it_was(verdict), requeue_after=self.circumstances.hold)
        return Plan((*self._confirm_recorded(), *write) if write else ())

    def acknowledge(self) -> tuple[WriteStatus, ...]:
        """Record this incarnation's pod, if it is not recorded yet."""
        pod = self.current
        known = pod is None or pod.metadata.uid == self.vm.status.pod_uid
        return () if pod is None or known else self._publish_pod(pod)

    def _stop(self) -> Plan:
        verdict = Verdict(status.READY, status=False, reason="Stopped", message="spec.running is false")
        if self.own:
            return Plan((*_deletions(self.view, self.own, "the VM is stopped"), *self._publish_ending()))
        if self.vm.status.phase == Phase.STOPPED:
            return Plan(self._publish(Phase.STOPPED, verdict, steps=(Step(Phase.STOPPED, self.now),)))
        if self._used_up and self.circumstances.hold > 0:
            return Plan(requeue_after=self.circumstances.hold)
        # The next life gets the next number now, so that starting again needs no further write.
        incarnation = self.incarnation + 1 if self._used_up else self.incarnation
        write = self._publish(Phase.STOPPED, verdict, steps=(Step(Phase.STOPPED, self.now),), incarnation=incarnation)
        return Plan((*self._confirm_recorded(), *write))

    def _follow(self, pod: Pod) -> Plan:
        """Publish the pod of this incarnation, keep its metadata current, replace it when it is done."""
        housekeeping = _deletions(self.view, self.older, f"incarnation {self.incarnation} replaces it")
        if self._ends_here(pod):
            return self._replace("The VM migrates", confirm=False)
        if not pod.done or pod.terminating:
            return Plan(
                (*housekeeping, *self._refresh(pod), *self._publish_pod(pod)),
                progressing=(status.progressing(pod) or self._arrives(pod)) and not status.says_no_pod(self.vm),
            )
        failure = self._failure(pod)
        if failure != self.vm.status.start_failure:
            # The write comes back as an event, and with it the wait.
            return Plan((*housekeeping, *self._publish_pod(pod)))
        return self._replace("The failed pod is replaced", confirm=False)

    def _arrives(self, pod: Pod) -> bool:
        """Whether it runs as the target of a migration, whose end will tell so."""
        return self.vm.status.migration is not None and status.pod_phase(pod) is Phase.RUNNING

    def _ends_here(self, pod: Pod) -> bool:
        """Whether a migration asks for the next life: its source's turn has come, or its target cannot be placed."""
        claim = self.vm.status.migration
        if claim is None:
            return False
        if self.incarnation == claim.source_incarnation:
            return True
        return claim.rollback and self.incarnation == claim.source_incarnation + 1 and pod.spec.node_name is None

    def _replace(self, why: str, *, confirm: bool) -> Plan:
        """Move to the next incarnation; the reconcile after this one deletes what is left and creates."""
        failure = self.vm.status.start_failure
        retry_at = times.parse_timestamp(failure.retry_after_timestamp) if failure is not None else None
        backoff = (retry_at - self.circumstances.now).total_seconds() if retry_at is not None else 0.0
        backoff = min(backoff, status.LONGEST_START_BACKOFF)  # a later time is nobody's word of ours
        wait = max(backoff, self.circumstances.hold)
        if wait > 0:
            if self.current is not None:
                return Plan(self._publish_pod(self.current), requeue_after=wait)
            # Failed stays Failed until its retry; otherwise this is what Pending means: a pod is to be created.
            failed = self.vm.status.phase == Phase.FAILED
            phase = Phase.FAILED if failed else Phase.PENDING
            gone = Verdict(status.READY, status=False, reason="PodNotExists", message=f"{why}; a new one follows")
            return Plan(self._publish(phase, gone, steps=(Step(phase, self.now),)), requeue_after=wait)
        incarnation = self.incarnation + 1
        verdict = Verdict(
            status.READY,
            status=False,
            reason="PodNotExists",
            message=f"{why}; pod {self._name(incarnation)} takes its place",
        )
        write = self._publish(
            Phase.SCHEDULING, verdict, steps=(Step(Phase.SCHEDULING, self.now),), incarnation=incarnation
        )
        return Plan((*(self._confirm_recorded() if confirm else ()), *write))

    def _start(self) -> Plan:
        """No pod of this incarnation yet: wait until a namesake's pods are gone, then create."""
        if living := tuple(pod for pod in self.strangers if not pod.done):
            return self._await(living)
        if self.spec is None or self.used is None:  # pragma: no cover - plan() has answered this before
            return NOTHING
        refusal = self.circumstances.create_refusal
        published: tuple[WriteStatus, ...] = ()
        if refusal is not None:
            verdict = Verdict(status.READY, status=False, reason=status.FAILED_CREATE, message=refusal)
            phase = self._before_pod
            published = self._publish(phase, verdict, steps=(Step(phase, self.now),))
            if published:
                return Plan(published, tells_refusal=True)
        return Plan(
            (
                CreatePod(
                    name=self._name(self.incarnation),
                    incarnation=self.incarnation,
                    body=launcher.manifest(
                        self.vm,
                        self.incarnation,
                        self.spec,
                        self.used.shares,
                        self.policy,
                        placement=self._placement(),
                    ),
                    predecessor=self._name(self.incarnation - 1) if self.incarnation > 0 else None,
                ),
            )
        )

    def _await(self, predecessors: tuple[Pod, ...]) -> Plan:
        """Wait until the pods are gone of a VM that had this name before; say so if that takes long."""
        created = times.parse_timestamp(self.vm.metadata.creation_timestamp) or self.circumstances.now
        patience = NAMESAKE_PATIENCE - (self.circumstances.now - created).total_seconds()
        if 0 < patience <= NAMESAKE_PATIENCE + CLOCK_SKEW:
            return Plan(requeue_after=patience)
        pod = min(predecessors, key=lambda pod: pod.metadata.name)
        message = f"Pod {pod.metadata.name} of the VM that had this name before goes first{status.held(pod)}"
        verdict = Verdict(status.READY, status=False, reason=status.NAMESAKES_POD, message=message)
        phase = self._before_pod
        return Plan(self._publish(phase, verdict, steps=(Step(phase, self.now),)))

    # --- parts -------------------------------------------------------------------------------------------

    def _placement(self) -> launcher.Placement:
        """Where the next pod may go: a migration narrows it for the life that follows its source."""
        claim = self.vm.status.migration
        if claim is None or claim.rollback or self.incarnation != claim.source_incarnation + 1:
            return launcher.Placement(
                rather_not=records.avoided(self.circumstances.migrations, self.vm.metadata.uid, self.incarnation)
            )
        return launcher.placement_of(claim)

    def _name(self, incarnation: int) -> str:
        return launcher.name(self.vm, incarnation)

    @property
    def _used_up(self) -> bool:
        """Whether this incarnation's pod was seen, so that its name must never be used again."""
        recorded = self.vm.status.incarnation == self.incarnation and self.vm.status.pod_uid is not None
        return recorded or self._seen

    @property
    def _seen(self) -> bool:
        """Whether this incarnation's pod was seen, although no status tells of it yet."""
        return self.circumstances.seen is not None and self.circumstances.seen >= self.incarnation

    def _confirm_recorded(self) -> tuple[ConfirmPodGone, ...]:
        recorded = self.vm.status.pod_name or (self._name(self.incarnation) if self._seen else None)
        return (ConfirmPodGone(recorded),) if recorded is not None else ()

    def _refresh(self, pod: Pod) -> tuple[PatchPod, ...]:
        """Bring a pod's labels and usage annotations up to date, in one patch, if any differs."""
        if self.used is None or pod.terminating:
            return ()
        wanted_annotations = launcher.usage_annotations(self.used.shares, self.policy.reference)
        stale_labels = launcher.label_changes(self.vm, pod)
        stale_annotations = {k: v for k, v in wanted_annotations.items() if pod.metadata.annotations.get(k) != v}
        return (PatchPod(pod, stale_labels, stale_annotations),) if stale_labels or stale_annotations else ()

    def _failure(self, pod: Pod) -> StartFailure:
        return status.start_failure(self.vm, pod, now=self.circumstances.now, jitter=self.circumstances.jitter)

    def _publish_pod(self, pod: Pod, verdict: Verdict | None = None) -> tuple[WriteStatus, ...]:
        pod = status.as_it_was(pod, self.vm.status)
        phase = status.pod_phase(pod)
        failure = None
        if pod.done and self.vm.spec.running:
            failure = self._failure(pod)
        elif phase is not Phase.RUNNING:
            failure = self.vm.status.start_failure
        target = VMStatus(
            node_name=pod.spec.node_name,
            pod_name=pod.metadata.name,
            pod_uid=pod.metadata.uid,
            start_failure=failure,
        )
        steps = status.new_steps(self.vm.status, self.incarnation, pod, self.now)
        return self._write(phase, target, verdict or status.pod_readiness(pod), steps, self.incarnation)

    def _publish_ending(self) -> tuple[WriteStatus, ...]:
        """Publish that the pod goes for good: once the cache shows so, or before its name is forgotten.

        Never that it is ready: whoever waits for a status of the newest spec would take that for the answer.
        """
        pod = self.current
        if pod is None:
            going = next((pod for pod in self.older if pod.terminating), None)
            return self._publish_as_it_was(status.ending(going)) if going is not None else ()
        if pod.terminating:
            return self._publish_pod(pod)
        known = pod.metadata.uid == self.vm.status.pod_uid
        return () if known else self._publish_pod(pod, status.ending(pod))

    def _publish_held(self, pods: tuple[Pod, ...]) -> tuple[WriteStatus, ...]:
        """Publish what holds a pod that has to go before the next one is made; nothing of one that just goes."""
        pod = next((pod for pod in pods if pod.terminating and status.held(pod)), None)
        if pod is None:
            return ()
        ending = status.ending(pod)
        return self._publish_as_it_was(ending._replace(message=f"{ending.message}; the next pod is made after that"))

    def _publish_as_it_was(self, verdict: Verdict) -> tuple[WriteStatus, ...]:
        """Publish another reason for a phase that stays."""
        phase = self._before_pod
        return self._publish(phase, verdict, steps=(Step(phase, self.now),))

    @property
    def _before_pod(self) -> Phase:
        """Phase of a VM whose pod is still to be made."""
        return Phase.SCHEDULING if self.vm.status.phase == Phase.SCHEDULING else Phase.PENDING

    def _publish(
        self, phase: str, verdict: Verdict, *, steps: tuple[Step, ...] = (), incarnation: int | None = None
    ) -> tuple[WriteStatus, ...]:
        """Publish a phase in which no pod exists."""
        incarnation = self.incarnation if incarnation is None else incarnation
        waiting = phase not in (Phase.RUNNING, Phase.STOPPED)
        # While the incarnation stays, so does the memory that its pod was seen.
        same_life = incarnation == self.vm.status.incarnation and phase != Phase.STOPPED
        recorded = self.vm.status.pod_name if same_life else None
        target = VMStatus(
            pod_name=self._name(incarnation) if phase == Phase.SCHEDULING else recorded,
            pod_uid=self.vm.status.pod_uid if same_life else None,
            start_failure=self.vm.status.start_failure if waiting else None,
        )
        return self._write(phase, target, verdict, steps, incarnation)

    def _write(
        self, phase: str, target: VMStatus, verdict: Verdict, steps: tuple[Step, ...], incarnation: int
    ) -> tuple[WriteStatus, ...]:
        """Complete a status and write it if it differs from the one recorded."""
        before = self.vm.status
        complete = msgspec.structs.replace(
            target,
            phase=str(phase),
            observed_generation=self.vm.metadata.generation or None,
            incarnation=incarnation,
            migration=before.migration,
            created_at=before.created_at or self.vm.metadata.creation_timestamp or self.now,
            cpu_consumption=self.used.shares.cpu_text if self.used else before.cpu_consumption,
            memory_consumption=self.used.shares.memory_text if self.used else before.memory_consumption,
        )
        wanted = status.extend(
            self.vm,
            complete,
            steps=steps,
            standing=(verdict, *self._warnings()),
            now=self.now,
            history_limit=HISTORY_LIMIT,
        )
        return (WriteStatus(wanted),) if wanted != before else ()

    def _warnings(self) -> tuple[Verdict, ...]:
        """Conditions that are there only while they are true."""
        found: list[Verdict] = []
        if self.vm.metadata.deletion_timestamp is not None:
            return ()  # nothing needs attention any more
        if self.used is not None and self.used.problems:
            message = "; ".join(self.used.problems)
            found.append(Verdict(status.INVALID_CONSUMPTION, status=True, reason="NotARatio", message=message))
        if self.spec_problem is not None:
            found.append(Verdict(status.INVALID_SPEC, status=True, reason="NotARatio", message=self.spec_problem))
        if self.current is not None and not self.current.done and self.spec is not None and self.vm.spec.running:
            annotations = self.current.metadata.annotations
            cpu, memory = annotations.get(names.REQUESTED_CPU), annotations.get(names.REQUESTED_MEMORY)
            if self.spec.differs(cpu, memory):
                message = (
                    f"Pod {self.current.metadata.name} still requests cpu {cpu}, memory {memory}; "
                    "the spec holds from the next start"
                )
                found.append(Verdict(status.RESTART_REQUIRED, status=True, reason="ResourcesChanged", message=message))
        return tuple(found)
