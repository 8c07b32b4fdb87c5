"""The objects that the benchmark creates and reads; only the fields that it reads are decoded."""

from __future__ import annotations

from typing import Any, Final

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMResources, VMSpec
from controller.domain.vm import launcher
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.meta import ObjectMeta, Value
from controller.kube.resources import Resource

NAMESPACE: Final = "default"
_SHARE: Final = "0.005"
"""The share of a node that each VM requests: 100 VMs fill half a node, so no burst meets a full one."""
VMS_PER_NODE: Final = 80
"""Of the 110 pods that a node can hold, which leaves capacity for added VMs and for migrations."""
_POLICY: Final = LauncherPolicy()


class BriefStatus(Value, frozen=True):
    """The part of a VM's, a pod's or a migration's status that the benchmark reads."""

    phase: str = ""
    cpu_consumption: str = ""


class Brief(Value, frozen=True):
    """The part of an object that the benchmark reads."""

    metadata: ObjectMeta
    status: BriefStatus = BriefStatus()

    @property
    def running(self) -> bool:
        """Whether it runs and is not being deleted."""
        return self.status.phase == "Running" and self.metadata.deletion_timestamp is None


VMS: Final = Resource(names.GROUP, names.VERSION, names.VM_PLURAL, Brief)
MIGRATIONS: Final = Resource(names.GROUP, names.VERSION, names.MIGRATION_PLURAL, Brief)
PODS: Final = Resource("", "v1", "pods", Brief)


def vm(name: str) -> dict[str, Any]:
    """Return a VM to create."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VM_KIND,
        "metadata": {"name": name},
        "spec": {"resources": {"cpu": _SHARE, "memory": _SHARE}},
    }


def bare_pod(name: str, *, incarnation: int = 0) -> dict[str, Any]:
    """Return the pod that the VM of this name would get, without an owner."""
    shares = VMResources(cpu=_SHARE, memory=_SHARE)
    owner = VirtualMachine(ObjectMeta(name=name, namespace=NAMESPACE, uid=f"bare-{name}"), VMSpec(resources=shares))
    spec = launcher.requested(owner)
    body = launcher.manifest(owner, incarnation, spec, launcher.consumption(owner, spec).shares, _POLICY)
    del body["metadata"]["ownerReferences"]  # the garbage collector would delete it, since its owner does not exist
    return body


def migration(name: str, vm_name: str, *, strategy: str = "Recreate") -> dict[str, Any]:
    """Return a migration to create."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": {"name": name},
        "spec": {"vmName": vm_name, "strategy": strategy},
    }


def nodes_for(vms: int) -> int:
    """Return the number of nodes for so many VMs."""
    return max(4, -(-vms // VMS_PER_NODE))
