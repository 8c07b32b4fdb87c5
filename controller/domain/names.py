"""Every name that the simulator writes into the cluster.

Guarantees: a pod's name is a pure function of (VM name, VM UID, incarnation), so that creating the same
pod twice collides at the API server.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from controller.kube import managers
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

BOOT_TIME: Final = f"{GROUP}/boot-time"
"""How long the guest boots after its pod has started, such as `90s`; the pod carries it, too."""
DIRTY_RATE: Final = f"{GROUP}/dirty-rate"
"""Bytes a second that the guest writes to its memory, such as `10Mi`; a live migration copies them again."""
WRITABLE_SET: Final = f"{GROUP}/writable-set"
"""How much memory the guest writes to over and over: a share of the memory in use (`3%`), or bytes (`200Mi`)."""
START_NODE: Final = f"{GROUP}/start-node"
"""The node that the VM's first pod prefers, and no later one."""
REQUIRED_START_NODE: Final = f"{GROUP}/required-start-node"
"""The only node on which the VM's first pod may run."""

# --- On the migration, written by the command line -------------------------------------------------------
DRAIN_LABEL: Final = f"{GROUP}/drain"
"""Names the drained node, so that one command can cancel the drain's pending migrations."""

# --- On VMs and nodes, written by `vmsim load` -------------------------------------------------------------
SCENARIO_LABEL: Final = f"{GROUP}/scenario"
"""Names the scenario that created the object, so that unloading deletes exactly its objects."""

# --- On the pod, written by the controller ------------------------------------------------------------------
VM_LABEL: Final = f"{GROUP}/vm"
"""Names the VM. The pod watch selects on its presence."""
INCARNATION: Final = f"{GROUP}/incarnation"
"""The VM's incarnation whose pod this is; adoption requires it to match."""
REQUESTED_CPU: Final = f"{GROUP}/requested-cpu"
REQUESTED_MEMORY: Final = f"{GROUP}/requested-memory"
"""The ratios from which the pod's requests were computed; the spec may have been edited since."""
PLACEMENT: Final = f"{GROUP}/placement"
"""Checksums of the placement fields from which the pod was made; absent if the spec had none."""

# --- On the record of an eviction, written by the controller ------------------------------------------------
SOURCE_NODE: Final = f"{GROUP}/source-node"
SOURCE_POD: Final = f"{GROUP}/source-pod"
SOURCE_INCARNATION: Final = f"{GROUP}/source-incarnation"
SOURCE_VM: Final = f"{GROUP}/source-vm"
"""The VM's UID: a namesake may have its name before the record is finished."""

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


# --- Of an installation: its Lease, and the ConfigMap with its settings, which have one name --------------------
HOME: Final = "vmsim-system"
"""The namespace in which the manifests install the controller."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
"""On the ConfigMap, with the controller's name: one without it is another client's."""


def installation(controller_class: str | None) -> str:
    """Return the name of the Lease of a class's controllers, and of the ConfigMap with their settings."""
    return "-".join(filter(None, (managers.CONTROLLER, controller_class)))


@lru_cache(maxsize=1024)  # a decision asks for the same name several times
def pod_name(vm_name: str, vm_uid: str, incarnation: int) -> str:
    """Return `virt-launcher-<vm>-<5 chars>`, a pure function of the arguments."""
    return f"{POD_PREFIX}{vm_name}-{suffix(f'{vm_uid}/{incarnation}')}"


def record_name(vm_name: str, pod_uid: str) -> str:
    """Return `evicted-<vm>-<5 chars>`, the name of the record of a pod's eviction: the same at each attempt."""
    return f"evicted-{vm_name}-{suffix(pod_uid)}"


def migration_name(vm_name: str, seed: str) -> str:
    """Return `<vm>-<5 chars>`, like a generateName, but a pure function of the arguments.

    So a create with an unknown outcome can be repeated.
    """
    return f"{vm_name[: LONGEST_LABEL - 1 - SUFFIX_LENGTH].rstrip('-.')}-{suffix(seed)}"
