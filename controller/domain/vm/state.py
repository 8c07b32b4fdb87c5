"""A VM that exists, as one decision sees it, and the statuses that the branches of that decision publish.

Guarantees: after a wiped status, the incarnation does not restart below that of an existing pod. An unchanged status is
not written. While the incarnation stays, so does the record that its pod was seen.
"""

from __future__ import annotations

from typing import Final

import msgspec

from controller.domain import names, ownership
from controller.domain.objects import Claim, GuestMode, StartFailure, VirtualMachine, VMStatus
from controller.domain.ratio import RatioError
from controller.domain.vm import boot, guest, inherited, launcher, placement, start_backoff, status
from controller.domain.vm.launcher import Shares
from controller.domain.vm.placement import PlacementError
from controller.domain.vm.plan import Circumstances, ConfirmPodGone, View, WriteStatus
from controller.domain.vm.policy import LauncherPolicy
from controller.domain.vm.status import Phase, Step, Verdict
from controller.kube import naming, times
from controller.kube.kinds import Pod

HISTORY_LIMIT: Final = 50
"""Transitions that `.status.conditions` retains."""


class VMState:
    """A VM, its own pods and foreign ones, its current incarnation and spec. Used for one decision."""

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
        booted = vm.status.pod_uid if vm.status.phase == Phase.RUNNING else None
        self.own = own = boot.as_seen(
            [pod for pod in view.pods if ownership.belongs_to(pod, vm)], circumstances.now, booted
        )
        all_ours = len(own) == len(view.pods)
        self.foreign = () if all_ours else tuple(pod for pod in view.pods if not ownership.belongs_to(pod, vm))
        incarnations = [ownership.incarnation(pod) for pod in own]
        claim = vm.status.migration
        self.live = live = claim if claim is not None and claim.is_live else None
        # After a wiped status the incarnation must not restart below that of an existing pod.
        highest = max([vm.status.incarnation or 0, *filter(None, incarnations)])
        self.incarnation = highest if live is None else vm.status.incarnation or 0
        if self.incarnation != vm.status.incarnation and (len(own) > 1 or vm.status.last_incarnation is not None):
            self.incarnation = _of_several(vm.status, own, highest)
        self.current = own[incarnations.index(self.incarnation)] if self.incarnation in incarnations else None
        self.target: Pod | None = None
        if live is not None and live.target in incarnations:
            self.target = own[incarnations.index(live.target)]
        self._highest = max(highest, vm.status.last_incarnation or 0, live.target if live is not None else 0)
        kept = (self.current,) if live is None else self._needed(live, incarnations)
        self.superfluous = tuple(pod for pod in own if pod not in kept)
        self.spec_problem: str | None = None
        self.spec_reason = ""
        self.spec: Shares | None = None
        self.used: launcher.Consumption | None = None
        try:
            self.spec = launcher.requested(vm)
            self.used = launcher.consumption(vm, self.spec)
            if vm.spec.node_selector or vm.spec.affinity is not None:
                placement.check(vm.spec, policy)
        except RatioError as error:
            self.spec_problem, self.spec_reason = str(error), status.NOT_A_RATIO
        except PlacementError as error:
            self.spec_problem, self.spec_reason = str(error), status.CONTRADICTION

    @property
    def next(self) -> int:
        """The number of the next incarnation: one that was never given out."""
        return self._highest + 1

    @property
    def previous(self) -> int | None:
        """The number of the incarnation before this one; None for the first."""
        recorded = self.vm.status.previous_incarnation
        return recorded if recorded is not None else self.incarnation - 1 if self.incarnation > 0 else None

    @property
    def wants_target(self) -> bool:
        """Whether a live move wants its target pod: before the hand-over, unless it is being undone."""
        live, spec = self.live, self.vm.spec
        moves = live is not None and live.aborting is None and self.incarnation == live.source_incarnation
        return moves and spec.running and self.vm.metadata.deletion_timestamp is None

    @property
    def in_post_copy(self) -> bool:
        """Whether the VM runs on the target while a part of its memory is on the source."""
        live = self.live
        if live is None or live.aborting is not None or live.mode != GuestMode.POST_COPY:
            return False
        return self.incarnation == live.target

    @property
    def lost_in_post_copy(self) -> bool:
        """Whether a live move is undone after its hand-over: the VM's memory was on both nodes, and one is lost."""
        live = self.live
        return live is not None and live.aborting is not None and self.incarnation == live.target

    def _needed(self, live: Claim, incarnations: list[int | None]) -> tuple[Pod | None, ...]:
        """Return the pods that a live move needs: the VM's, and its target; in post-copy, its source."""
        if self.lost_in_post_copy:
            return ()
        needs_source = self.in_post_copy and live.source_incarnation in incarnations
        source = self.own[incarnations.index(live.source_incarnation)] if needs_source else None
        return self.current, self.target if self.wants_target else source

    def name(self, incarnation: int) -> str:
        """Return the name of one incarnation's pod."""
        return launcher.name(self.vm, incarnation)

    @property
    def used_up(self) -> bool:
        """Whether this incarnation's pod was seen, so that its name must never be used again."""
        recorded = self.vm.status.incarnation == self.incarnation and self.vm.status.pod_uid is not None
        return recorded or self._seen

    @property
    def _seen(self) -> bool:
        """Whether this incarnation's pod was seen, although the status that records it is still pending."""
        return self.circumstances.seen is not None and self.circumstances.seen >= self.incarnation

    def confirm_recorded(self) -> tuple[ConfirmPodGone, ...]:
        """Ask for a live read of the pod that was seen last, before its name is dropped from the status."""
        recorded = self.vm.status.pod_name or (self.name(self.incarnation) if self._seen else None)
        return (ConfirmPodGone(recorded),) if recorded is not None else ()

    def until_silence(self, pod: Pod) -> float | None:
        """Return the seconds after which a pod's scheduler counts as silent, 0 if it does now; None if it reported."""
        if pod.spec.node_name is not None or not status.unnoticed(pod):
            return None
        ready = status.ready(self.vm) if self.vm.status.pod_uid == pod.metadata.uid else None
        if ready is not None and ready.reason == status.NOT_SCHEDULED:
            return 0.0  # published, perhaps by another process, which may have waited longer
        return max(0.0, status.SCHEDULER_PATIENCE - self.circumstances.unplaced_for)

    def failure(self, pod: Pod) -> StartFailure:
        """Return the start failure, with its backoff, that follows from a pod that ended."""
        return start_backoff.start_failure(self.vm, pod, now=self.circumstances.now, jitter=self.circumstances.jitter)

    # --- statuses ----------------------------------------------------------------------------------------

    def publish_pod(self, pod: Pod, verdict: Verdict | None = None) -> tuple[WriteStatus, ...]:
        """Publish the state of this incarnation's pod."""
        pod = status.as_it_was(pod, self.vm.status)
        phase = status.pod_phase(pod)
        failure = None
        if pod.done and self.vm.spec.running:
            failure = self.failure(pod)
        elif phase is not Phase.RUNNING:
            failure = self.vm.status.start_failure
        target = VMStatus(
            node_name=pod.spec.node_name,
            pod_name=pod.metadata.name,
            pod_uid=pod.metadata.uid,
            start_failure=failure,
        )
        steps = status.new_steps(self.vm.status, self.incarnation, pod, self.now)
        return self._write(
            phase,
            target,
            verdict or status.pod_readiness(pod, silent=self.until_silence(pod) == 0),
            steps,
            self.incarnation,
        )

    def publish_ending(self) -> tuple[WriteStatus, ...]:
        """Publish that the pod is being deleted for good: when the cache shows it, or if the pod is not recorded yet.

        Never publishes Ready=True: a client that waits for the status of the newest spec would accept it as the result.
        """
        pod = self.current
        if pod is None:
            ending = next((pod for pod in self.superfluous if pod.terminating), None)
            return self.publish_as_it_was(status.ending(ending)) if ending is not None else ()
        if pod.terminating:
            return self.publish_pod(pod)
        recorded = pod.metadata.uid == self.vm.status.pod_uid
        return () if recorded else self.publish_pod(pod, status.ending(pod))

    def publish_blocked(self, pods: tuple[Pod, ...]) -> tuple[WriteStatus, ...]:
        """Publish what blocks the deletion of a pod before the next one is created; nothing if nothing blocks it."""
        pod = next((pod for pod in pods if pod.terminating and status.blocker(pod)), None)
        if pod is None:
            return ()
        ending = status.ending(pod)
        return self.publish_as_it_was(ending._replace(message=f"{ending.message}; the next pod is created after that"))

    def publish_as_it_was(self, verdict: Verdict) -> tuple[WriteStatus, ...]:
        """Publish another reason why there is no pod yet; the phase stays Scheduling, or is Pending."""
        before_pod = Phase.SCHEDULING if self.vm.status.phase == Phase.SCHEDULING else Phase.PENDING
        return self.publish(before_pod, verdict)

    def publish(self, phase: Phase, verdict: Verdict, *, incarnation: int | None = None) -> tuple[WriteStatus, ...]:
        """Publish a phase in which no pod exists."""
        incarnation = self.incarnation if incarnation is None else incarnation
        waiting = phase not in (Phase.RUNNING, Phase.STOPPED)
        # While the incarnation stays, so does the record that its pod was seen.
        same = incarnation == self.vm.status.incarnation and phase != Phase.STOPPED
        recorded = self.vm.status.pod_name if same else None
        target = VMStatus(
            pod_name=self.name(incarnation) if phase == Phase.SCHEDULING else recorded,
            pod_uid=self.vm.status.pod_uid if same else None,
            start_failure=self.vm.status.start_failure if waiting else None,
        )
        return self._write(phase, target, verdict, (Step(phase, self.now),), incarnation)

    def _write(
        self, phase: str, target: VMStatus, verdict: Verdict, steps: tuple[Step, ...], incarnation: int
    ) -> tuple[WriteStatus, ...]:
        """Complete a status; write it if it differs from the recorded one."""
        before = self.vm.status
        moved = incarnation != before.incarnation
        gap = before.incarnation if moved and before.incarnation not in (None, incarnation - 1) else None
        highest = max(self._highest, incarnation)
        complete = msgspec.structs.replace(
            target,
            phase=str(phase),
            observed_generation=self.vm.metadata.generation or None,
            incarnation=incarnation,
            last_incarnation=highest if before.last_incarnation is not None or highest > incarnation else None,
            previous_incarnation=gap if moved else before.previous_incarnation,
            last_hand_over=before.last_hand_over,
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
        """Return the conditions that exist only while they are true."""
        found: list[Verdict] = []
        if self.live is not None:
            found.append(self._migrating(self.live))
        if self.vm.metadata.deletion_timestamp is not None:
            return tuple(found)  # a VM that is being deleted needs no warning
        if self.used is not None and self.used.problems:
            message = "; ".join(self.used.problems)
            found.append(Verdict(status.INVALID_CONSUMPTION, status=True, reason=status.NOT_A_RATIO, message=message))
        if self.spec_problem is not None:
            found.append(Verdict(status.INVALID_SPEC, status=True, reason=self.spec_reason, message=self.spec_problem))
        if (late := boot.of_vm(self.vm, self.policy.boot_time).problem) is not None:
            found.append(Verdict(status.INVALID_BOOT_TIME, status=True, reason="NotADuration", message=late))
        if not self.vm.metadata.annotations:
            return (*found, *self._restart_required())
        if self.spec is not None:
            wrong = guest.problems(self.vm, self.spec.memory, self.policy.reference)
            found += [Verdict(why.condition, True, why.reason, why.message) for why in wrong]
        start = self.vm.metadata.annotations.get(names.START_NODE)
        if start and not naming.is_subdomain(start):
            message = f"annotation {names.START_NODE} is {start[:64]!r}, which is no node's name; it is not used"
            found.append(Verdict(status.INVALID_START_NODE, status=True, reason="NotAName", message=message))
        if left_out := inherited.left_out(self.vm):
            message = (
                f"A pod takes over {inherited.ANNOTATIONS_LIMIT // 1024} KiB of annotations at most; "
                f"left out: {status.shortened(left_out)}"
            )
            found.append(Verdict(status.ANNOTATIONS_LEFT_OUT, status=True, reason="TooLarge", message=message))
        return (*found, *self._restart_required())

    def _migrating(self, claim: Claim) -> Verdict:
        """Return the condition that the VM moves live, and what its second pod waits for."""
        second = next((pod for pod in self.superfluous if pod.terminating and status.blocker(pod)), None)
        if claim.aborting is not None:
            reason, how = "Aborting", f"undone ({claim.aborting})"
        elif self.incarnation == claim.target and claim.mode == GuestMode.POST_COPY:
            reason, how = (
                "PostCopy",
                f"runs in pod {self.name(claim.target)}, and a part of its memory is still to come",
            )
        elif self.incarnation == claim.target:
            reason, how = "CleaningUp", f"handed over to pod {self.name(claim.target)}"
        elif claim.mode == GuestMode.PAUSED:
            reason, how = "Paused", f"its guest waits for its memory on the way to pod {self.name(claim.target)}"
        else:
            reason, how = "InProgress", f"on its way to pod {self.name(claim.target)}"
        blocked = f"; {status.ending(second).message}" if second is not None else ""
        message = f"Migration {claim.name}: {how}{blocked}"
        return Verdict(status.MIGRATING, status=True, reason=reason, message=message)

    def _restart_required(self) -> tuple[Verdict, ...]:
        """Return the condition that the spec was edited since its pod was created."""
        pod = self.current
        if pod is None or pod.done or self.spec is None or not self.vm.spec.running:
            return ()
        annotations = pod.metadata.annotations
        cpu, memory = annotations.get(names.REQUESTED_CPU), annotations.get(names.REQUESTED_MEMORY)
        resized = self.spec.differs(cpu, memory)
        recorded, now = annotations.get(names.PLACEMENT, ""), placement.checksums(self.vm.spec)
        if not resized and recorded == now:
            return ()
        moved = placement.differing(recorded, now)
        old = [f"requests cpu {cpu}, memory {memory}"] if resized else []
        old += [f"has the {', '.join(moved)} of an earlier spec"] if moved else []
        message = f"Pod {pod.metadata.name} still {' and '.join(old)}; the spec applies from the next start"
        reason = "ResourcesChanged" if resized else "PlacementChanged"
        return (Verdict(status.RESTART_REQUIRED, status=True, reason=reason, message=message),)


def _of_several(recorded: VMStatus, pods: tuple[Pod, ...], highest: int) -> int:
    """Return which of several pods is the VM, where a status forgot a number; `highest` is the pods' highest.

    No other pod is the VM while the recorded one lives, nor later one whose number is remembered: it was given to the
    target of a live move. If none is recorded, the lowest is that does not end: of the two pods of a live move whose
    status was wiped, the source has the guest.
    """
    numbers = {number: pod for pod in pods if (number := ownership.incarnation(pod)) is not None and not pod.done}
    if recorded.incarnation is not None:
        known = recorded.incarnation in numbers or highest <= (recorded.last_incarnation or 0)
        return recorded.incarnation if known else highest
    return min((number for number, pod in numbers.items() if not pod.terminating), default=highest)
