"""Every name the simulator writes into the cluster, in one place.

Guarantees: a pod's name is a pure function of (VM name, VM UID, incarnation), so that creating the same pod
twice collides at the API server instead of making two.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from controller.kube.naming import LONGEST_LABEL, SUFFIX_LENGTH, suffix

GROUP: Final = "simulation.node-classifier.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
VM_KIND: Final = "VirtualMachine"
VM_PLURAL: Final = "virtualmachines"
MIGRATION_KIND: Final = "VirtualMachineMigration"
MIGRATION_PLURAL: Final = "virtualmachinemigrations"

# --- On the VM, written by users -------------------------------------------------------------------------
CPU_CONSUMPTION: Final = f"{GROUP}/cpu-consumption"
MEMORY_CONSUMPTION: Final = f"{GROUP}/memory-consumption"

CONTROLLER_CLASS: Final = f"{GROUP}/controller-class"
"""Names the installation that a VM belongs to; without it, the default one. Its pods carry it, too."""

# --- On the migration, written by the command line -------------------------------------------------------
DRAIN_LABEL: Final = f"{GROUP}/drain"
"""Names the node that is drained, so that one command can cancel what a drain still has waiting."""

# --- On VMs and nodes, written by `vmsim load` --------------------------------------------------------------
SCENARIO_LABEL: Final = f"{GROUP}/scenario"
"""Names the scenario that made it, so that unloading removes exactly that."""

# --- On the pod, written by us ---------------------------------------------------------------------------
VM_LABEL: Final = f"{GROUP}/vm"
"""Names the VM. The pod watch selects on its presence."""
INCARNATION: Final = f"{GROUP}/incarnation"
"""The incarnation of the VM that this pod is; adoption requires it to match."""
REQUESTED_CPU: Final = f"{GROUP}/requested-cpu"
REQUESTED_MEMORY: Final = f"{GROUP}/requested-memory"
"""The spec's ratios that the pod's requests were made from: they differ from the spec after an edit."""

# --- On the record of an eviction, written by us ----------------------------------------------------------------
SOURCE_NODE: Final = f"{GROUP}/source-node"
SOURCE_POD: Final = f"{GROUP}/source-pod"
SOURCE_INCARNATION: Final = f"{GROUP}/source-incarnation"
SOURCE_VM: Final = f"{GROUP}/source-vm"
"""The VM's UID: another VM may have its name by the time the record is told to its end."""

# KWOK's resource usage from annotations (kustomize/metrics/usage/usage-from-annotation.yaml).
KWOK_USAGE_CPU: Final = "kwok.x-k8s.io/usage-cpu"
KWOK_USAGE_MEMORY: Final = "kwok.x-k8s.io/usage-memory"

# KubeVirt's launcher labels and annotations (pkg/virt-controller/services/template.go).
KUBEVIRT_APP_LABEL: Final = "kubevirt.io"
KUBEVIRT_APP: Final = "virt-launcher"
KUBEVIRT_CREATED_BY: Final = "kubevirt.io/created-by"
KUBEVIRT_VM_NAME: Final = "vm.kubevirt.io/name"
KUBEVIRT_DOMAIN: Final = "kubevirt.io/domain"

POD_PREFIX: Final = "virt-launcher-"
MAX_VM_NAME: Final = LONGEST_LABEL - len(POD_PREFIX) - 1 - SUFFIX_LENGTH
"""43: the pod's name must be a DNS label, since it is also a hostname."""


@lru_cache(maxsize=1024)  # a decision asks for the same name several times
def pod_name(vm_name: str, vm_uid: str, incarnation: int) -> str:
    """`virt-launcher-<vm>-<5 chars>`, the same for the same arguments for ever."""
    return f"{POD_PREFIX}{vm_name}-{suffix(f'{vm_uid}/{incarnation}')}"


def record_name(vm_name: str, pod_uid: str) -> str:
    """`evicted-<vm>-<5 chars>`: the record of one pod's eviction, the same however often it is made."""
    return f"evicted-{vm_name}-{suffix(pod_uid)}"


def migration_name(vm_name: str, seed: str) -> str:
    """`<vm>-<5 chars>`, as the API server would make it of a generateName, but the same for the same arguments.

    Asking for it again is safe after a request whose outcome is unknown.
    """
    return f"{vm_name[: LONGEST_LABEL - 1 - SUFFIX_LENGTH].rstrip('-.')}-{suffix(seed)}"
