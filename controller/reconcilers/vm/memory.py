"""What is remembered of a VM, and no cache shows; and one visit of it, with all that the visit is about.

Guarantees: one value holds all that is remembered of a VM, so that it is forgotten at once. Bounded by the VMs that
exist, and those whose pods do.
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


class Waiting(msgspec.Struct, frozen=True):
    """A status that was not written, and the VM as it was when that was decided."""

    vm: VirtualMachine
    status: VMStatus


class Known(msgspec.Struct):
    """What is remembered of one VM.

    `about`: its UID; another may have the name by now. `gone`: the UID of a VM that a write found gone, until the cache
    shows it, too. `foreign`: it exists, but is not ours: another class's, or outside of our selection. `held_until`:
    the incarnation must not move until then (monotonic). `tries`: creates of its next pod that did not succeed.
    `waiting`: a status that the next write will tell as well. `echo`: of a VM that runs, the version that told all
    there is to tell, and the pods it told of; until it comes back. `untold`: evictions that are still to be recorded,
    by the pod's UID; the pods may be gone by now.
    """

    about: str | None = None
    gone: str | None = None
    foreign: bool = False
    held_until: float | None = None
    tries: CreateFailures | None = None
    waiting: Waiting | None = None
    echo: tuple[str, tuple[Pod, ...]] | None = None
    untold: dict[str, tuple[Pod, str]] | None = None


Memory: TypeAlias = defaultdict[str, Known]
"""What is remembered, by the VM's key."""


class Visit(msgspec.Struct, frozen=True):
    """One look at a VM: its key, what the caches show, and what is remembered."""

    key: str
    namespace: str
    caches: Caches
    known: Known
    view: View

    @property
    def vm(self) -> VirtualMachine:
        """The VM, where there can be no doubt that it exists."""
        if self.view.vm is None:
            raise AssertionError(f"{self.key}: there is no VM to act for")
        return self.view.vm
