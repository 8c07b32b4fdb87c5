"""The objects that the benchmark makes and looks at, decoded no further than it reads them."""

from __future__ import annotations

from typing import Any, Final

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMResources, VMSpec
from controller.domain.vm import launcher
from controller.kube.meta import ObjectMeta, Value
from controller.kube.resources import Resource

NAMESPACE: Final = "default"
_SHARE: Final = "0.005"
"""Of a node, that each VM asks for: 100 of them fill half of one, and no burst ends at a full node."""
VMS_PER_NODE: Final = 80
"""Of the 110 that a node takes: there is room for what a measurement adds, and for migrations."""
_POLICY: Final = launcher.LauncherPolicy()


class Told(Value, frozen=True):
    """The part of a status that tells how far a VM, a pod or a migration has come."""

    phase: str = ""
    cpu_consumption: str = ""


class Brief(Value, frozen=True):
    """An object, as far as the benchmark looks."""

    metadata: ObjectMeta
    status: Told = Told()

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


def bare_pod(name: str, *, life: int = 0) -> dict[str, Any]:
    """Return the pod that the VM of this name would get, with no VM that owns it."""
    shares = VMResources(cpu=_SHARE, memory=_SHARE)
    owner = VirtualMachine(ObjectMeta(name=name, namespace=NAMESPACE, uid=f"bare-{name}"), VMSpec(resources=shares))
    spec = launcher.requested(owner)
    body = launcher.manifest(owner, life, spec, launcher.consumption(owner, spec).shares, _POLICY)
    del body["metadata"]["ownerReferences"]  # or it would be collected, since its owner does not exist
    return body


def migration(name: str, vm_name: str) -> dict[str, Any]:
    """Return the wish that a VM moves."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MIGRATION_KIND,
        "metadata": {"name": name},
        "spec": {"vmName": vm_name},
    }


def nodes_for(vms: int) -> int:
    """Return how many nodes so many VMs are given."""
    return max(4, -(-vms // VMS_PER_NODE))
