"""A VM's status as a function of its pod: phase, Ready, transition history.

Guarantees: equal inputs give an equal status, so a reconcile that changes nothing writes nothing. A phase that passed
between two writes still enters the history, in order. `Ready` is the first condition (kubectl wait takes the first of a
type); the history comes last, oldest first, and is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.vm import boot, placement
from controller.kube.kinds import Pod
from controller.kube.meta import Condition
from controller.kube.times import parse_timestamp, timestamp

READY: Final = "Ready"
MIGRATING: Final = "Migrating"
RESTART_REQUIRED: Final = "RestartRequired"
INVALID_CONSUMPTION: Final = "InvalidConsumption"
INVALID_SPEC: Final = "InvalidSpec"
INVALID_BOOT_TIME: Final = "InvalidBootTime"
INVALID_START_NODE: Final = "InvalidStartNode"
NOT_A_RATIO: Final = "NotARatio"
CONTRADICTION: Final = "ContradictsInstallation"
NOT_SCHEDULED: Final = "NotScheduled"
ANNOTATIONS_LEFT_OUT: Final = "AnnotationsLeftOut"
NODE_NOT_READY: Final = "NodeNotReady"
FAILED_CREATE: Final = "FailedCreate"
NAMESAKES_POD: Final = "NamesakePodExists"
BOOTS: Final = "its guest boots until"
"""Part of the message of a VM whose guest boots."""
KUBERNETES_FINALIZERS: Final = ("foregroundDeletion", "orphan")
"""The garbage collector's own: an object with no others is deleted within moments."""
SCHEDULER_PATIENCE: Final = 5.0
"""Seconds for which a pod waits for a scheduler's first report before the VM's status says so."""
_NAMED: Final = 5
"""Names that a message lists."""
_LONGEST_MESSAGE: Final = 2048
"""Characters of a condition's message: it may quote what a user wrote, and every status write repeats it."""
_HISTORY_PREFIX: Final = "Phase"


class Phase(StrEnum):
    """The phases of a VM."""

    PENDING = "Pending"
    SCHEDULING = "Scheduling"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    FAILED = "Failed"
    STOPPED = "Stopped"


_PROGRESS: Final[dict[str, int]] = {
    Phase.SCHEDULING: 1,
    Phase.SCHEDULED: 2,
    Phase.RUNNING: 3,
    Phase.FAILED: 4,
}
"""Order of the phases of one pod. Pending and Stopped come before the pod: 0."""


_PHASES: Final = frozenset(phase.value for phase in Phase)


class Step(NamedTuple):
    """A phase, and when it was reached (RFC 3339, whole seconds)."""

    phase: Phase
    at: str


class Verdict(NamedTuple):
    """A condition without its transition time."""

    type: str
    status: bool
    reason: str
    message: str


def pod_phase(pod: Pod) -> Phase:
    """Return the phase of the VM whose launcher pod this is."""
    if pod.done:
        return Phase.FAILED
    if pod.status.phase == "Running":
        return Phase.RUNNING
    return Phase.SCHEDULED if pod.spec.node_name else Phase.SCHEDULING


def unnoticed(pod: Pod) -> bool:
    """Whether a pod waits for its scheduler's first report."""
    waits = pod.spec.node_name is None and pod.status.condition("PodScheduled") is None
    return waits and not pod.terminating and not pod.done


def progressing(pod: Pod) -> bool:
    """Whether a pod is starting, with no problem to report."""
    bound = pod.status.condition("PodScheduled")
    stuck = bound is not None and bound.status == "False"
    return pod_phase(pod) in (Phase.SCHEDULING, Phase.SCHEDULED) and not pod.terminating and not stuck


def unschedulable(pod: Pod) -> str | None:
    """Return why the scheduler found no node for a pod; None if it reported nothing."""
    bound = pod.status.condition("PodScheduled")
    return bound.message if bound is not None and bound.reason == "Unschedulable" else None


def ready(vm: VirtualMachine) -> Condition | None:
    """Return a VM's condition Ready, the first of its type; None if it has none."""
    return next((condition for condition in vm.status.conditions if condition.type == READY), None)


def says_no_pod(vm: VirtualMachine) -> bool:
    """Whether the recorded status reports why there is no pod, which is outdated once there is one."""
    recorded = ready(vm)
    return recorded is not None and recorded.reason in (FAILED_CREATE, NAMESAKES_POD)


def pod_steps(pod: Pod, now: str) -> tuple[Step, ...]:
    """Return every phase that a pod has reached, with the times that the cluster recorded (`now` where it has none)."""
    created = pod.metadata.creation_timestamp or now
    steps = [Step(Phase.SCHEDULING, created)]
    if pod.spec.node_name:
        bound = pod.status.condition("PodScheduled")
        steps.append(Step(Phase.SCHEDULED, (bound and bound.last_transition_time) or created))
    if pod.status.phase == "Running":
        ready = pod.status.condition("Ready")
        at = ready.last_transition_time if ready and ready.status == "True" else None
        booted = boot.ends(pod)
        steps.append(Step(Phase.RUNNING, (timestamp(booted) if booted else at) or pod.status.start_time or now))
    if pod.done:
        steps.append(Step(Phase.FAILED, now))
    return tuple(steps)


def node_silent(pod: Pod) -> bool:
    """Whether the node controller marked the pod not ready because its node stopped reporting.

    It changes Ready and nothing else (kubernetes/pkg/controller/util/node, MarkPodsNotReady): ContainersReady
    stays True, and Ready has no reason, which a kubelet always gives.
    """
    ready, containers = pod.status.condition("Ready"), pod.status.condition("ContainersReady")
    flipped = ready is not None and ready.status == "False" and ready.reason in ("", NODE_NOT_READY)
    return flipped and containers is not None and containers.status == "True"


def foreign_finalizers(vm: VirtualMachine) -> tuple[str, ...]:
    """Return the finalizers of a VM that are not Kubernetes' own: other clients delay its deletion by them."""
    return tuple(name for name in vm.metadata.finalizers if name not in KUBERNETES_FINALIZERS)


def listed(noun: str, names: tuple[str, ...]) -> str:
    """Write `finalizer a`, or `finalizers a, b`."""
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def shortened(names: tuple[str, ...]) -> str:
    """Write the first of many names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def runs_ready(pod: Pod) -> bool:
    """Whether a pod runs and is ready."""
    ready = pod.status.condition("Ready")
    return pod.status.phase == "Running" and ready is not None and ready.status == "True"


def blocker(pod: Pod) -> str:
    """Return, as the end of a sentence, what blocks the deletion of a pod; "" if nothing does."""
    if not pod.terminating:
        return ""
    if pod.metadata.finalizers:
        return f"; it is held by {listed('finalizer', pod.metadata.finalizers)}"
    if pod.status.phase == "Running" and node_silent(pod):
        return f"; its node {pod.spec.node_name}, which would end it, stopped reporting"
    return ""


def ending(pod: Pod) -> Verdict:
    """Return Ready for a VM whose pod is being deleted."""
    message = f"Pod {pod.metadata.name} is being deleted{blocker(pod)}"
    return Verdict(READY, status=False, reason="PodTerminating", message=message)


def as_it_was(pod: Pod, recorded: VMStatus) -> Pod:
    """Return a pod with the phase from before its deletion: an end by deletion is no failure of the VM.

    A pod that is recorded as failed before its deletion is returned unchanged.
    """
    if not (pod.done and pod.terminating):
        return pod
    last = _last_phase(recorded.conditions) if recorded.pod_uid == pod.metadata.uid else ""
    if last == Phase.FAILED:
        return pod
    phase = "Running" if last == Phase.RUNNING else "Pending"
    return msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, phase=phase))


def pod_readiness(pod: Pod, *, silent: bool) -> Verdict:
    """Return Ready for a VM with this pod, with KubeVirt's reasons where it has one. `silent`: its scheduler is."""
    if pod.terminating:
        return ending(pod)
    if pod.done:
        detail = ": ".join(part for part in (pod.status.reason, pod.status.message) if part)
        ended = f"Pod {pod.metadata.name} ended as {pod.status.phase}"
        return Verdict(READY, status=False, reason="PodFailed", message=f"{ended}: {detail}" if detail else ended)
    ready = pod.status.condition("Ready")
    if pod.status.phase == "Running" and ready is not None and ready.status == "True":
        return Verdict(READY, status=True, reason="GuestRunning", message="")
    if (unplaced := _unplaced(pod, silent=silent)) is not None:
        return unplaced
    if pod.status.phase == "Running" and node_silent(pod):
        message = f"Pod {pod.metadata.name} was marked not ready when its node {pod.spec.node_name} stopped reporting"
        return Verdict(READY, status=False, reason=NODE_NOT_READY, message=message)
    until = boot.ends(pod) if pod.status.phase != "Running" else None
    state = "is not ready yet" if until is None else f"has started; {BOOTS} {timestamp(until)}"
    return Verdict(READY, status=False, reason="GuestNotRunning", message=f"Pod {pod.metadata.name} {state}")


def _unplaced(pod: Pod, *, silent: bool) -> Verdict | None:
    """Return Ready for a VM whose pod has no node: the scheduler's reason, or that no scheduler reports any."""
    bound = pod.status.condition("PodScheduled")
    if bound is not None and bound.status == "False":
        return Verdict(READY, status=False, reason=bound.reason or "Unschedulable", message=bound.message)
    if not silent:
        return None
    message = (
        f"No scheduler has taken up pod {pod.metadata.name} for {SCHEDULER_PATIENCE:.0f} s; "
        f"it waits for the one with schedulerName {placement.scheduler_of(pod)}"
    )
    return Verdict(READY, status=False, reason=NOT_SCHEDULED, message=message)


def extend(
    vm: VirtualMachine,
    target: VMStatus,
    *,
    steps: Iterable[Step],
    standing: Iterable[Verdict],
    now: str,
    history_limit: int,
) -> VMStatus:
    """Complete `target` with its conditions: standing ones first, then the old history and the new steps.

    A standing condition keeps its time until its status flips. Times in the history never run backwards, since
    the cluster's clocks and ours differ by a little.
    """
    recorded = vm.status.conditions
    history = _history(recorded)
    fresh = list(steps)
    if not history:
        fresh.insert(0, Step(Phase.PENDING, vm.metadata.creation_timestamp or now))
    latest = history[-1].last_transition_time if history and fresh else None
    if parse_timestamp(latest) is None:
        latest = ""  # a malformed time, written by another client, orders nothing
    for step in fresh:
        if history and history[-1].type == f"{_HISTORY_PREFIX}{step.phase}":
            continue
        latest = at = max(step.at, latest or "")
        history.append(
            Condition(
                type=f"{_HISTORY_PREFIX}{step.phase}",
                status="True",
                last_transition_time=at,
                reason=f"TransitionedTo{step.phase}",
                message=f"VM transitioned to {step.phase} phase",
            )
        )
    before = {condition.type: condition for condition in recorded}
    current = tuple(_settle(verdict, before.get(verdict.type), now) for verdict in standing)
    return msgspec.structs.replace(target, conditions=(*current, *history[-history_limit:]))


def _history(conditions: Iterable[Condition]) -> list[Condition]:
    return [condition for condition in conditions if condition.type.startswith(_HISTORY_PREFIX)]


def _settle(verdict: Verdict, before: Condition | None, now: str) -> Condition:
    status = "True" if verdict.status else "False"
    at = before.last_transition_time if before is not None and before.status == status else now
    return Condition(
        type=verdict.type,
        status=status,
        last_transition_time=at,
        reason=verdict.reason,
        message=verdict.message[:_LONGEST_MESSAGE],
    )


def new_steps(status: VMStatus, incarnation: int, pod: Pod, now: str) -> tuple[Step, ...]:
    """Return the steps of this pod that the history does not contain yet."""
    # Taken from the history, not from the recorded phase, which another client may have edited.
    last = _last_phase(status.conditions)
    same = status.incarnation == incarnation and not (last == Phase.FAILED and not pod.done)
    if same and last == pod_phase(pod):
        return ()
    reached = _PROGRESS.get(last, 0) if same else 0
    if _PROGRESS[pod_phase(pod)] < reached:
        reached = 0  # phases never revert: the history is of an earlier pod, whose record another client removed
    return tuple(step for step in pod_steps(pod, now) if _PROGRESS[step.phase] > reached)


def _last_phase(conditions: tuple[Condition, ...]) -> str:
    """Return the last phase of the history, "" if there is none."""
    last = conditions[-1].type if conditions else ""
    return last.removeprefix(_HISTORY_PREFIX) if last.startswith(_HISTORY_PREFIX) else ""


def first_steps(old: VirtualMachine, new: VirtualMachine) -> tuple[Step, ...]:
    """Return the steps between two states of a VM in its first incarnation.

    Later incarnations, and a VM that was created stopped, do not show how long a creation takes.
    """
    if old.metadata.uid != new.metadata.uid or new.status.incarnation != 0:
        return ()
    history, known = _history(new.status.conditions), len(_history(old.status.conditions))
    phases = tuple(item.type.removeprefix(_HISTORY_PREFIX) for item in history)
    if Phase.STOPPED in phases:
        return ()
    # An unknown phase is another release's; it is skipped.
    return tuple(
        Step(Phase(phase), item.last_transition_time or "")
        for phase, item in zip(phases[known:], history[known:], strict=True)
        if phase in _PHASES
    )
