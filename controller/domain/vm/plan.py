"""What a decision about a VM is made from, and the plan that comes of it.

Guarantees: frozen values. Actions of a plan run in order; a guard that does not hold ends the plan, and a later
reconcile decides anew.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from controller.domain.objects import VirtualMachine, VirtualMachineMigration, VMStatus
from controller.kube.kinds import Pod


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
