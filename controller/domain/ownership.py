"""A pod as a VM's launcher: its owner, and its incarnation.

Guarantees: the UID distinguishes a VM from a namesake. A malformed incarnation is none.
"""

from __future__ import annotations

from typing import Final

from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.kinds import Pod
from controller.kube.meta import OwnerReference

_LONGEST: Final = 9
"""Digits that are parsed: no VM starts more often, so a longer number is not the controller's."""


def owner(pod: Pod) -> OwnerReference | None:
    """Return the VirtualMachine that controls a pod, if one does."""
    for reference in pod.metadata.owner_references:
        if reference.controller and reference.kind == names.VM_KIND and reference.api_version == names.API_VERSION:
            return reference
    return None


def belongs_to(pod: Pod, vm: VirtualMachine) -> bool:
    """Whether exactly this VM controls a pod, not a namesake."""
    found = owner(pod)
    return found is not None and found.uid == vm.metadata.uid


def vm_uid(pod: Pod) -> str | None:
    """Return the UID of the VirtualMachine that controls a pod, if one does."""
    found = owner(pod)
    return found.uid if found is not None else None


def vm_key(pod: Pod) -> str | None:
    """Return `namespace/name` of the VirtualMachine that controls a pod, if one does."""
    found = owner(pod)
    return f"{pod.metadata.namespace}/{found.name}" if found is not None else None


def incarnation(of: Pod | VirtualMachineMigration, annotation: str = names.INCARNATION) -> int | None:
    """Return the VM's incarnation that an annotation names; None when it is missing or no number of nine digits."""
    text = of.metadata.annotations.get(annotation, "")
    return int(text) if len(text) <= _LONGEST and text.isascii() and text.isdigit() else None
