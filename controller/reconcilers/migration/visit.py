"""The context of one reconcile of a VM's migrations: the VM's key, and what the caches show."""

from __future__ import annotations

import msgspec

from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Pod
from controller.observe.caches import Caches


class Visit(msgspec.Struct, frozen=True):
    """The context of one reconcile. `vm` is None if the cache has no such VM, even if migrations name it."""

    key: str
    caches: Caches
    vm: VirtualMachine | None
    pods: tuple[Pod, ...]
    migrations: tuple[VirtualMachineMigration, ...]

    @property
    def the_vm(self) -> VirtualMachine:
        """The VM, where the caller knows that it exists."""
        if self.vm is None:
            raise AssertionError(f"{self.key}: there is no VM to claim")
        return self.vm

    @property
    def orphaned(self) -> bool:
        """Whether the VM's claim names a migration that the cache does not have."""
        claim = self.vm.status.migration if self.vm is not None else None
        return claim is not None and all(item.metadata.uid != claim.uid for item in self.migrations)
