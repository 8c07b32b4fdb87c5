"""The VM reconciler's own state per VM, beyond the caches, and the context of one reconcile.

Guarantees: one value holds all state of a VM, so that a single `del` drops it. Bounded by the VMs that exist, and those
that have pods.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

import msgspec

from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.vm.plan import View
from controller.kube.kinds import Pod
from controller.observe.caches import Caches
from controller.reconcilers.vm.create_failures import CreateFailures


class PendingStatus(msgspec.Struct, frozen=True):
    """A status that is not written yet, and the VM that it was decided on."""

    vm: VirtualMachine
    status: VMStatus


class Known(msgspec.Struct):
    """The controller's own state of one VM, beyond the caches.

    - `about`: the VM's UID; a namesake may have been created since.
    - `deleted`: the UID of a VM that a write did not find any more, until the cache shows the deletion, too.
    - `foreign`: the VM exists, but is not ours: it is of another class, or outside of our selection.
    - `expected_until`: a create may still commit until then (monotonic, seconds); the incarnation does not change.
    - `create_failures`: failed creates of the next pod.
    - `pending`: a status that is published with the next write.
    - `own_write`: of a running VM, the version of our last write, after which nothing was left to do, and the pods that
      it was decided on; dropped once the cache shows that version.
    - `target_given`: the number that this process gave to the target of a live move, while no create of it was sent.
    - `target_seen`: the number of the last such target whose pod the cache has shown.
    - `unrecorded`: evictions without a record yet, by the pod's UID; the pods may be deleted by now.
    """

    about: str | None = None
    deleted: str | None = None
    foreign: bool = False
    expected_until: float | None = None
    create_failures: CreateFailures | None = None
    pending: PendingStatus | None = None
    own_write: tuple[str, tuple[Pod, ...]] | None = None
    target_given: int | None = None
    target_seen: int | None = None
    unrecorded: dict[str, tuple[Pod, str]] | None = None


Memory: TypeAlias = defaultdict[str, Known]
"""The state of each VM, by its key."""


class Visit(msgspec.Struct, frozen=True):
    """The context of one reconcile: the VM's key, what the caches show, and the controller's own state."""

    key: str
    namespace: str
    caches: Caches
    known: Known
    view: View

    @property
    def vm(self) -> VirtualMachine:
        """The VM, where the caller knows that it exists."""
        if self.view.vm is None:
            raise AssertionError(f"{self.key}: there is no VM to act for")
        return self.view.vm
