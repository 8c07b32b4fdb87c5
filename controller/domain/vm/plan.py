"""The input of a decision about a VM, and its output, a plan.

Guarantees: frozen values. Actions of a plan run in order; a guard that fails ends the plan, and a later reconcile
decides again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from controller.domain.objects import VirtualMachine, VirtualMachineMigration, VMStatus
from controller.kube.kinds import Pod


class View(msgspec.Struct, frozen=True):
    """What the caches show of one `namespace/name`: the VM, and every pod that names it as its controller.

    `lost_nodes`: nodes of these pods that the cache of nodes does not have. `asked`: UIDs of pods whose deletion is in
    flight: the request was sent and not answered.
    """

    vm: VirtualMachine | None
    pods: tuple[Pod, ...] = ()
    lost_nodes: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()

    def deletion_begun(self, pod: Pod) -> bool:
        """Whether a pod's deletion has begun, or a request for it is in flight, so that none has to be requested."""
        return pod.terminating or pod.metadata.uid in self.asked

    def deletions(self, pods: Iterable[Pod], why: str) -> tuple[DeletePod, ...]:
        """Return the deletions of these pods that have not begun."""
        return tuple(DeletePod(pod, why) for pod in pods if not self.deletion_begun(pod))


class Circumstances(msgspec.Struct, frozen=True):
    """Input of a decision that neither the VM nor its pods show.

    `jitter` is in [0, 1). `create_expected`: seconds for which a create may still commit; the incarnation stays.
    `create_refusal`: why the last create failed. `unplaced_for`: seconds for which the scheduler of a pod without a
    node has been silent. `seen`: the incarnation whose pod was seen, its status pending.
    """

    now: datetime
    jitter: float = 0.0
    create_expected: float = 0.0
    create_refusal: str | None = None
    unplaced_for: float = 0.0
    seen: int | None = None
    target_given: int | None = None
    target_seen: int | None = None
    migrations: tuple[VirtualMachineMigration, ...] = ()


class CreatePod(msgspec.Struct, frozen=True):
    """Create the pod of one incarnation, after a live read confirms that the pod `predecessor` no longer exists."""

    name: str
    incarnation: int
    body: dict[str, Any]
    predecessor: str | None = None


class DeletePod(msgspec.Struct, frozen=True):
    """Delete exactly this pod in exactly this state (UID and resourceVersion); `force`: with no grace period."""

    pod: Pod
    why: str
    force: bool = False


class ConfirmVMGone(msgspec.Struct, frozen=True):
    """Guard: a live read confirms that the VM with this UID no longer exists."""

    name: str
    uid: str


class ConfirmNodeGone(msgspec.Struct, frozen=True):
    """Guard: a live read confirms that this node no longer exists."""

    name: str


class ConfirmPodGone(msgspec.Struct, frozen=True):
    """Guard: a live read finds no pod of this VM by this name. One without its labels gets them back."""

    name: str


class ConfirmTold(msgspec.Struct, frozen=True):
    """Guard: a live read confirms that the migration with this UID has ended, or no longer exists."""

    name: str
    uid: str


class PatchPod(msgspec.Struct, frozen=True):
    """Set metadata on this pod (UID and resourceVersion guarded); a key whose value is None is removed."""

    pod: Pod
    labels: dict[str, str | None]
    annotations: dict[str, str | None]


class WriteStatus(msgspec.Struct, frozen=True):
    """Replace the VM's status if the VM is still as the cache shows it."""

    status: VMStatus


Act: TypeAlias = CreatePod | DeletePod | ConfirmVMGone | ConfirmNodeGone | ConfirmPodGone | ConfirmTold | PatchPod
Action: TypeAlias = Act | WriteStatus


class Plan(msgspec.Struct, frozen=True):
    """Actions in order, and the seconds after which to reconcile again without an event.

    `reports_refusal`: the status write reports why the pod could not be created; the create is then retried.
    `progressing`: the pod is starting, or runs as a migration's target, so that its status may be coalesced with the
    next write.
    """

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    progressing: bool = False
    reports_refusal: bool = False

    @property
    def wants_pod(self) -> bool:
        """Whether the plan is to create a pod, now or after a reported refusal."""
        return self.reports_refusal or any(isinstance(action, CreatePod) for action in self.actions)


NOTHING: Final = Plan()
