"""A migration as one decision sees it, and the statuses that the branches of that decision publish.

Guarantees: each phase is published with the time at which it was reached, also one that passed between two writes. An
unchanged status is not written.
"""

from __future__ import annotations

from typing import Final

import msgspec

from controller.domain import names, nodes, ownership
from controller.domain.copying.record import Copying
from controller.domain.migration import copying, phases, preflight
from controller.domain.migration.phases import COMPLETED, GUESS, ROOM_FOUND, MigrationPhase, Reason
from controller.domain.migration.plan import ClaimVM, Plan, View, WriteMigration
from controller.domain.objects import (
    Claim,
    HandOver,
    MigrationStatus,
    PhaseTime,
    Strategy,
    VirtualMachine,
    VirtualMachineMigration,
)
from controller.domain.vm import boot, status
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import times
from controller.kube.kinds import Pod
from controller.kube.meta import Condition

NODE_PATIENCE: Final = 10.0
"""Seconds after which a lost or silent node is checked again: its return causes no event of the VM."""
UNREMARKABLE: Final = 5.0
"""Seconds for which a source may terminate before the status reports it."""
_RECREATE: Final = (
    MigrationPhase.PENDING,
    MigrationPhase.TERMINATING,
    MigrationPhase.SCHEDULING,
    MigrationPhase.STARTING,
)
_LIVE: Final = (
    MigrationPhase.PENDING,
    MigrationPhase.SCHEDULING,
    MigrationPhase.SCHEDULED,
    MigrationPhase.PREPARING_TARGET,
    MigrationPhase.TARGET_READY,
    MigrationPhase.RUNNING,
)
"""The phases before the end, in their order."""


def own(vm: VirtualMachine | None, pods: tuple[Pod, ...]) -> tuple[Pod, ...]:
    """Return the VM's own pods; pods of a namesake may have the same incarnations."""
    return tuple(pod for pod in pods if ownership.belongs_to(pod, vm)) if vm is not None else ()


def pod_of(pods: tuple[Pod, ...], incarnation: int) -> Pod | None:
    """Return the pod of one of the VM's incarnations; None if there is none."""
    return next((pod for pod in pods if ownership.incarnation(pod) == incarnation), None)


def is_spoiled(vm: VirtualMachine) -> bool:
    """Whether the VM's spec is invalid, so that no pod can follow."""
    return any(found.type == status.INVALID_SPEC for found in vm.status.conditions)


class Move:
    """A migration, its VM and the VM's own pods. Used for one decision."""

    def __init__(self, view: View, migration: VirtualMachineMigration, policy: LauncherPolicy) -> None:
        self.view = view
        self.policy = policy
        self.migration = migration
        self.before = migration.status
        self.vm = view.vm
        recorded = view.vm.status if view.vm is not None else None
        booted = recorded.pod_uid if recorded is not None and recorded.phase == status.Phase.RUNNING else None
        self.pods = boot.as_seen(own(view.vm, view.pods), view.now, booted)
        self.claim = view.vm.status.migration if view.vm is not None else None
        self.mine = self.claim is not None and self.claim.uid == migration.metadata.uid
        live = self.before.strategy or (self.claim.strategy if self.mine and self.claim is not None else None)
        self.live = live == Strategy.LIVE
        # With microseconds: the times of pods, in whole seconds, are too coarse for the downtime.
        self.now = times.micro_timestamp(view.now)

    # --- statuses ----------------------------------------------------------------------------------------

    def wait(self, reason: Reason, message: str, seconds: float) -> Plan:
        """Publish what a pending migration waits for, and reconcile again after so many seconds."""
        waiting = msgspec.structs.replace(self._at(MigrationPhase.PENDING), message=message)
        return Plan(self._write(waiting, reason), requeue_after=max(seconds, 0.1))

    def progress(
        self,
        phase: MigrationPhase,
        claim: Claim,
        source: Pod | None,
        target: Pod | None,
        message: str | None = None,
        *,
        copied: Copying | None = None,
    ) -> tuple[WriteMigration, ...]:
        """Publish a phase after the claim, and every phase before it; `message` replaces the target's.

        `copied` is published as the record of its copying, if it is given.
        """
        reached = self._reached(phase, claim, source, target, message)
        if copied is not None:
            reached = msgspec.structs.replace(reached, copying=copied)
        return self._write(reached, phase)

    def succeed(self, claim: Claim, source: Pod | None, target: Pod) -> WriteMigration:
        """Publish that the target runs, and for how long the VM was down."""
        phase = MigrationPhase.SUCCEEDED
        reached = self._complete(self._reached(phase, claim, source, target, None), phase)
        began = times.parse_timestamp(reached.start_timestamp) or self.view.now
        done = msgspec.structs.replace(
            reached,
            target_node=target.spec.node_name,
            end_timestamp=self.now,
            downtime_seconds=f"{max(0.0, (self.view.now - began).total_seconds()):.3f}",
            message=None,
        )
        return WriteMigration(done)

    def fail(self, reason: Reason, message: str) -> Plan:
        """Publish a failure, and remove the claim if it is this migration's."""
        written = self.failed(reason, message)
        return Plan((*written, ClaimVM(None)) if self.mine else written)

    def failed(self, reason: str, message: str) -> tuple[WriteMigration, ...]:
        """Publish a failure, and leave the claim: the VM reconciler removes it when the second pod is gone."""
        failed = msgspec.structs.replace(
            self._at(MigrationPhase.FAILED),
            end_timestamp=self.now,
            failure_reason=str(reason),
            message=message,
            copying=self._copied(),
        )
        return self._write(failed, reason)

    def abort(self, claim: Claim, reason: Reason, message: str) -> Plan:
        """Mark a live claim as aborting; then the migration is Failed."""
        why = f"{reason}: {message}"
        return Plan((ClaimVM(msgspec.structs.replace(claim, aborting=why)), *self.tell(why).actions))

    def tell(self, aborting: str) -> Plan:
        """Publish that the migration failed, with the reason that its claim has."""
        reason, _, message = aborting.partition(": ")
        return Plan(self.failed(reason, message))

    def succeed_live(self, target: Pod | None, over: HandOver) -> WriteMigration:
        """Publish that the VM was handed over."""
        phase = MigrationPhase.SUCCEEDED
        done = msgspec.structs.replace(
            self._at(phase),
            target_pod=self.before.target_pod or (target.metadata.name if target is not None else None),
            target_node=self.before.target_node or (target.spec.node_name if target is not None else None),
            start_timestamp=self.before.start_timestamp or over.timestamp,
            end_timestamp=over.timestamp,
            downtime_seconds=over.downtime_seconds or None,
            message=None,
            copying=self._copied(),
        )
        return WriteMigration(self._complete(done, phase))

    def _copied(self) -> Copying | None:
        """Return how far the copying is now, as far as that is known."""
        before, progress = self.before.copying, self.view.progress
        if before is None or progress is None:
            return before
        return copying.recorded(before, progress.checkpoint, self.view.now)

    def _reached(
        self, phase: MigrationPhase, claim: Claim, source: Pod | None, target: Pod | None, message: str | None
    ) -> MigrationStatus:
        bound = target.status.condition("PodScheduled") if target is not None else None
        waits = bound.message if bound is not None and bound.status == "False" else None
        guess = self._guess(phase)
        return msgspec.structs.replace(
            self._at(phase),
            source_node=claim.source_node,
            source_pod=self.before.source_pod or self._source_pod(source),
            target_pod=target.metadata.name if target is not None else None,
            target_node=target.spec.node_name if target is not None else None,
            start_timestamp=self.before.start_timestamp or self.now,
            # The scheduler's reason is more reliable than preflight: it knows all pods.
            message=message or (f"{waits} ({guess})" if waits and guess else waits or guess),
            conditions=(*self.before.conditions, *self._room_found(claim)),
        )

    def _room_found(self, claim: Claim) -> tuple[Condition, ...]:
        """Return the condition RoomFound, if the status lacks it."""
        found = preflight.note(claim, self.vm.spec) if self.vm is not None else None
        if found is None or phases.room_found(self.before) is not None:
            return ()
        reason, message = found
        return (Condition(ROOM_FOUND, "True", times.timestamp(self.view.now), reason, message),)

    def _guess(self, phase: MigrationPhase) -> str | None:
        """Return the caveat for a target without a node that was claimed without knowledge of all pods, else None."""
        unplaced = phase in (MigrationPhase.TERMINATING, MigrationPhase.SCHEDULING)
        return GUESS if unplaced and self.view.guessed and self.migration.spec.record_of is None else None

    def _source_pod(self, source: Pod | None) -> str | None:
        return source.metadata.name if source is not None else self.migration.metadata.annotations.get(names.SOURCE_POD)

    def _at(self, phase: MigrationPhase) -> MigrationStatus:
        """Return the status in a phase, with the time of each phase that was passed before it."""
        steps: tuple[MigrationPhase, ...]
        if phase is MigrationPhase.FAILED:
            steps = (phase,)
        elif phase is MigrationPhase.SUCCEEDED:
            steps = (*(_LIVE if self.live else _RECREATE), phase)
        else:
            unfinished = _LIVE if self.live else _RECREATE
            steps = unfinished[: unfinished.index(phase) + 1]
        recorded = {step.phase for step in self.before.phase_transition_timestamps}
        fresh = tuple(PhaseTime(str(step), self.now) for step in steps if step not in recorded)
        return msgspec.structs.replace(
            self.before,
            phase=str(phase),
            phase_transition_timestamps=(*self.before.phase_transition_timestamps, *fresh),
        )

    def _write(self, wanted: MigrationStatus, reason: str) -> tuple[WriteMigration, ...]:
        complete = self._complete(wanted, reason)
        return (WriteMigration(complete),) if complete != self.before else ()

    def _complete(self, wanted: MigrationStatus, reason: str) -> MigrationStatus:
        done = "True" if wanted.phase == MigrationPhase.SUCCEEDED else "False"
        before = next((found for found in self.before.conditions if found.type == COMPLETED), None)
        at = before.last_transition_time if before is not None and before.status == done else None
        condition = Condition(
            type=COMPLETED,
            status=done,
            last_transition_time=at or times.timestamp(self.view.now),
            reason=str(reason),
            message=wanted.message or "",
        )
        return msgspec.structs.replace(
            wanted,
            observed_generation=self.migration.metadata.generation or None,
            strategy=str(Strategy.LIVE) if self.live else wanted.strategy,
            vm_uid=self._vm_uid(),
            conditions=(condition, *(found for found in wanted.conditions if found.type == ROOM_FOUND)),
        )

    def _vm_uid(self) -> str | None:
        """Return the UID of the VM that this migration is about: the first of that name that a reconcile found."""
        return self.migration.vm_uid or (self.vm.metadata.uid if self.vm is not None else None)

    # --- times -------------------------------------------------------------------------------------------

    def since(self, phase: MigrationPhase) -> float:
        """Return the seconds since a phase was reached; 0 if it is reached now."""
        recorded = self.before.phase_transition_timestamps
        began = next((step.phase_transition_timestamp for step in recorded if step.phase == phase), self.now)
        start = times.parse_timestamp(began) or self.view.now
        return (self.view.now - start).total_seconds()

    def completion_left(self) -> float:
        """Return the seconds that are left for a migration that has claimed its VM."""
        return self.migration.spec.completion_timeout_seconds - self.since(MigrationPhase.TERMINATING)

    def blocker(self, source: Pod) -> str | None:
        """Return what blocks the deletion of a source pod; None as long as it takes no longer than usual."""
        pod = f"Pod {source.metadata.name} on node {source.spec.node_name}"
        if source.metadata.finalizers:
            return f"{pod} is held by its finalizers: {', '.join(source.metadata.finalizers)}"
        if (silence := nodes.silence(self.view.source_node)) is not None:
            return f"{pod} cannot end: {silence}"
        over = self.vm.status.last_hand_over if self.live and self.vm is not None else None
        began = times.parse_timestamp(over.timestamp) if over is not None else None
        ending = self.since(MigrationPhase.TERMINATING) if began is None else (self.view.now - began).total_seconds()
        if ending < UNREMARKABLE:
            return None
        return f"{pod} is still terminating" if source.terminating else f"{pod} is still to be deleted"
