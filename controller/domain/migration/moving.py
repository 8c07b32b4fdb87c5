"""A migration that has claimed its VM: follows what the VM reconciler does, and reports how it ended.

Guarantees: every claim ends, with the target running or with a failure. A target without a node at its timeout is
rolled back to a pod that may run on any node.
"""

from __future__ import annotations

import msgspec

from controller.domain import nodes, ownership
from controller.domain.migration import orphans
from controller.domain.migration.move import NODE_PATIENCE, UNREMARKABLE, Move, is_spoiled, pod_of
from controller.domain.migration.phases import MigrationPhase, Reason
from controller.domain.migration.plan import ClaimVM, Plan
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.vm import boot, status
from controller.kube.kinds import Pod


def decide(move: Move, vm: VirtualMachine, claim: Claim) -> Plan:
    """Decide about a migration that has claimed the VM."""
    if vm.metadata.deletion_timestamp is not None:
        return move.fail(Reason.VM_DELETED, "The VM was deleted during its migration")
    if not vm.spec.running:
        return move.fail(Reason.VM_STOPPED, "The VM was stopped during its migration")
    claimed = _Claimed(move, vm, claim)
    if move.migration.spec.cancel and not claimed.has_moved:
        return claimed.cancel()
    return claimed.follow()


def _create_refusal(vm: VirtualMachine) -> str | None:
    """Return why no pod of the VM can be created, as its status reports; None if it reports no such failure."""
    ready = status.ready(vm)
    return ready.message if ready is not None and ready.reason == status.FAILED_CREATE else None


class _Claimed:
    """A claimed VM between its source pod and its target pod. Exists for one call."""

    def __init__(self, move: Move, vm: VirtualMachine, claim: Claim) -> None:
        self.move = move
        self.vm = vm
        self.claim = claim
        self.source = pod_of(move.pods, claim.source_incarnation)
        self.target = pod_of(move.pods, claim.target)
        self.incarnation = vm.status.incarnation or 0

    @property
    def has_moved(self) -> bool:
        """Whether the target runs under the migration's constraints: a rolled back one does not count."""
        reached = self.vm.status.incarnation == self.claim.target and not self.claim.rollback
        return reached and self.target is not None and self.target.status.phase == "Running"

    def follow(self) -> Plan:
        """Follow the VM to its next incarnation."""
        targets = self.claim.target
        if self.incarnation <= targets and self.source is self.target is None and is_spoiled(self.vm):
            return self.move.fail(
                Reason.VM_NOT_RUNNING, "The source pod no longer exists, and the VM's spec allows no other"
            )
        if self.incarnation < targets:
            if self.source is None and _create_refusal(self.vm) is not None:
                return self._await_target(None)  # the claimed incarnation has no pod to end, and none can be created
            return Plan()  # the VM reconciler acts next
        if self.incarnation > targets:
            return self._lost()
        return self._await_target(self.source) if self.target is None else self._follow_target(self.target)

    def _lost(self) -> Plan:
        """Fail a migration whose target pod is no longer the VM's current one."""
        if self.claim.rollback:
            why = self.move.before.message or "no reason was given"
            unplaced = f"The target pod found no node in time ({why}); the next pod of the VM may go to any node"
            return self.move.fail(Reason.ROLLED_BACK, unplaced)
        lost = f"The target pod was lost before it ran; the next pod of VM {self.vm.metadata.name} may go to any node"
        return self.move.fail(Reason.TARGET_LOST, lost)

    def _follow_target(self, target: Pod) -> Plan:
        """Follow the target pod until it runs."""
        if target.done:
            ended = f"Target pod {target.metadata.name} ended as {target.status.phase}"
            return self.move.fail(Reason.TARGET_FAILED, f"{ended}; the next pod of the VM may go to any node")
        if target.status.phase == "Running":
            return Plan((self.move.succeed(self.claim, self.source, target), ClaimVM(None)))
        return self._starting(target) if target.spec.node_name is not None else self._scheduling(target)

    def _scheduling(self, target: Pod) -> Plan:
        progress = self.move.progress(MigrationPhase.SCHEDULING, self.claim, self.source, target)
        patience = self.move.migration.spec.unschedulable_timeout_seconds
        left = patience - self.move.since(MigrationPhase.SCHEDULING)
        if left > 0:
            return Plan(progress, requeue_after=left)
        if self.claim.rollback:
            return Plan(progress)
        return Plan((*progress, ClaimVM(msgspec.structs.replace(self.claim, rollback=True))))

    def _starting(self, target: Pod) -> Plan:
        left = self.move.completion_left() + boot.of_pod(target)
        if left <= 0:
            pod = f"Target pod {target.metadata.name}"
            late = f"{pod} did not start in time; the VM is down until it does, on node {target.spec.node_name}"
            return self.move.fail(Reason.COMPLETION_TIMEOUT, late)
        booted = boot.left(target, self.move.view.now) or left
        progress = self.move.progress(MigrationPhase.STARTING, self.claim, self.source, target)
        return Plan(progress, requeue_after=min(left, booted))

    def _await_target(self, source: Pod | None) -> Plan:
        """Wait until the target pod is created, up to the timeout: a blocked source or a quota may prevent it."""
        left = self.move.completion_left()
        if left <= 0:
            return self.move.fail(Reason.COMPLETION_TIMEOUT, self._never_created(source))
        if source is None:
            why = _create_refusal(self.vm)
            return Plan(self.move.progress(MigrationPhase.SCHEDULING, self.claim, None, None, why), requeue_after=left)
        blocker = self.move.blocker(source)
        waiting = self.move.progress(MigrationPhase.TERMINATING, self.claim, source, None, blocker)
        return Plan(waiting, requeue_after=min(left, UNREMARKABLE if blocker is None else NODE_PATIENCE))

    def _never_created(self, source: Pod | None) -> str:
        """Return why no target pod was created in time, and until when the VM is down."""
        name = self.vm.metadata.name
        if source is None:
            why = _create_refusal(self.vm)
            refused = f"could not be created in time ({why})" if why is not None else "was not created in time"
            return f"The target pod {refused}; VM {name} is down until a pod of it can be created"
        late = f"Pod {source.metadata.name} on node {source.spec.node_name} was not deleted in time"
        blocker = self.move.blocker(source) or late
        silent = nodes.silence(self.move.view.source_node) is not None and not source.metadata.finalizers
        until = nodes.revival(source.spec.node_name or "") if silent else "that pod is gone"
        return f"{blocker}; VM {name} is down until {until}"

    # --- cancelled ---------------------------------------------------------------------------------------

    def cancel(self) -> Plan:
        """Release the VM as if the migration had been deleted; publish Cancelled once the claim is removed."""
        released = orphans.release(self.vm, self.claim, self.move.pods)
        if ClaimVM(None) in released:
            return self.move.fail(Reason.CANCELLED, self._cancelled())
        left = self.move.completion_left()
        name, source = self.vm.metadata.name, self.source
        if left <= 0:
            late = f"Cancelled on its way: VM {name} may start on any node when it can"
            return self.move.fail(Reason.CANCELLED, late)
        terminating = self.target is None and source is not None
        phase = MigrationPhase.TERMINATING if terminating else MigrationPhase.SCHEDULING
        until = f", once pod {source.metadata.name} is gone" if source is not None else ""
        blocker = self.move.blocker(source) if source is not None else None
        why = f"Cancelled: VM {name} may start on any node{until}{f'. {blocker}' if blocker is not None else ''}"
        progress = self.move.progress(phase, self.claim, source, self.target, why)
        return Plan((*progress, *released), requeue_after=min(left, UNREMARKABLE))

    def _cancelled(self) -> str:
        """Return in which state a cancelled migration leaves its VM."""
        name, target = self.vm.metadata.name, self.target
        if self.vm.status.incarnation == self.claim.source_incarnation:
            return "Cancelled before its source was deleted"
        if target is not None and self.vm.status.incarnation == ownership.incarnation(target):
            stays = f"VM {name} goes on with pod {target.metadata.name} on node {target.spec.node_name}"
            return f"Cancelled on its way: {stays}"
        return f"Cancelled on its way: VM {name} may start on any node"
