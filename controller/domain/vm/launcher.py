"""The launcher pod of a VM: its manifest, and the metadata that is kept current on it.

Guarantees: the manifest passes the `restricted` Pod Security level, requests exactly ratio × reference node,
mounts nothing, and carries a controller ownerRef without blockOwnerDeletion (which would need a permission
on finalizers elsewhere).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from controller.domain import names
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.ratio import CPU_MAX, MEMORY_MAX, RatioError, ReferenceNode, parse_ratio
from controller.domain.vm import boot, inherited, placement
from controller.domain.vm.placement import ANYWHERE, Placement
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Pod

_NOT_OF_A_TARGET: Final = (names.PLACEMENT, names.BOOT_TIME)
"""Annotations that a live target does not take from its source: it does not boot, and is placed by the spec of now."""
IMAGE: Final = "registry.k8s.io/pause:3.10.1"
"""It does nothing, and a real node can pull it."""


class Shares(msgspec.Struct, frozen=True):
    """CPU and memory as shares of the reference node, with the strings that they were parsed from."""

    cpu: Decimal
    memory: Decimal
    cpu_text: str
    memory_text: str

    def differs(self, cpu: str | None, memory: str | None) -> bool:
        """Whether one of two recorded ratios differs from these; a missing one does not."""
        recorded = ((self.cpu, self.cpu_text, cpu), (self.memory, self.memory_text, memory))
        return any(text not in (None, own_text) and not _equals(own, text) for own, own_text, text in recorded)


class Consumption(msgspec.Struct, frozen=True):
    """What a VM uses now; `problems`: why a consumption annotation is not used."""

    shares: Shares
    problems: tuple[str, ...] = ()


def _equals(ratio: Decimal, text: str) -> bool:
    try:
        return Decimal(text) == ratio
    except InvalidOperation:
        return False


def requested(vm: VirtualMachine) -> Shares:
    """Parse the spec's ratios. Raises RatioError if one of them, or any other field, violates the schema."""
    if vm.unreadable and (problem := vm.spec_problem) is not None:
        # The defaults of fields that did not decode may differ from what the user wrote.
        raise RatioError(problem)
    resources = vm.spec.resources
    return Shares(
        cpu=parse_ratio(resources.cpu, field="spec.resources.cpu", maximum=CPU_MAX),
        memory=parse_ratio(resources.memory, field="spec.resources.memory", maximum=MEMORY_MAX),
        cpu_text=resources.cpu,
        memory_text=resources.memory,
    )


def requested_by(pod: Pod | None, vm: VirtualMachine) -> Shares:
    """Return the ratios that a VM's pod was made with, or else the spec's, which may be newer. Raises RatioError."""
    annotations, own = pod.metadata.annotations if pod is not None else {}, requested(vm)
    cpu, memory = annotations.get(names.REQUESTED_CPU), annotations.get(names.REQUESTED_MEMORY)
    return _shares(cpu or own.cpu_text, memory or own.memory_text)


def consumption(vm: VirtualMachine, spec: Shares) -> Consumption:
    """Parse the consumption annotations; the spec's ratio replaces an absent or malformed one."""
    problems: list[str] = []

    def read(annotation: str, maximum: Decimal, fallback: Decimal, fallback_text: str) -> tuple[Decimal, str]:
        text = vm.metadata.annotations.get(annotation)
        if text is None:
            return fallback, fallback_text
        try:
            return parse_ratio(text, field=f"annotation {annotation}", maximum=maximum), text
        except RatioError as error:
            problems.append(f"{error}; using the spec's {fallback_text}")
            return fallback, fallback_text

    cpu, cpu_text = read(names.CPU_CONSUMPTION, CPU_MAX, spec.cpu, spec.cpu_text)
    memory, memory_text = read(names.MEMORY_CONSUMPTION, MEMORY_MAX, spec.memory, spec.memory_text)
    return Consumption(Shares(cpu, memory, cpu_text, memory_text), tuple(problems))


def consumption_annotations(cpu: str | None, memory: str | None) -> dict[str, str]:
    """Return a VM's consumption annotations; None leaves one out, so that the VM uses what it requests."""
    wanted = {names.CPU_CONSUMPTION: cpu, names.MEMORY_CONSUMPTION: memory}
    return {key: value for key, value in wanted.items() if value is not None}


def name(vm: VirtualMachine, incarnation: int) -> str:
    """Return the name of one incarnation's pod, which no other VM's pod ever has."""
    return names.pod_name(vm.metadata.name, vm.metadata.uid, incarnation)


def labels(vm: VirtualMachine) -> dict[str, str]:
    """Return the labels that a launcher pod always has; the pod watch selects on the first, and on the VM's class."""
    found = {
        names.VM_LABEL: vm.metadata.name,
        names.KUBEVIRT_APP_LABEL: names.KUBEVIRT_APP,
        names.KUBEVIRT_CREATED_BY: vm.metadata.uid,
        names.KUBEVIRT_VM_NAME: vm.metadata.name,
    }
    of_class = vm.metadata.labels.get(names.CONTROLLER_CLASS)
    return found if of_class is None else {**found, names.CONTROLLER_CLASS: of_class}


def label_changes(vm: VirtualMachine, pod: Pod) -> dict[str, str | None]:
    """Return the labels to set on a pod; None for one to remove."""
    wanted: dict[str, str | None] = {names.CONTROLLER_CLASS: None, **labels(vm)}
    return {key: value for key, value in wanted.items() if pod.metadata.labels.get(key) != value}


def usage_annotations(used: Shares, reference: ReferenceNode) -> dict[str, str]:
    """Return the annotations that follow the VM's consumption: ours, and KWOK's, for `kubectl top`."""
    return {
        names.CPU_CONSUMPTION: used.cpu_text,
        names.MEMORY_CONSUMPTION: used.memory_text,
        names.KWOK_USAGE_CPU: reference.cpu_quantity(used.cpu),
        names.KWOK_USAGE_MEMORY: reference.memory_quantity(used.memory),
    }


def manifest(
    vm: VirtualMachine,
    incarnation: int,
    spec: Shares,
    used: Shares,
    policy: LauncherPolicy,
    *,
    where: Placement = ANYWHERE,
) -> dict[str, Any]:
    """Build the pod of one incarnation of a VM."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(vm, incarnation),
            "namespace": vm.metadata.namespace,
            "labels": {**inherited.labels(vm), **labels(vm)},
            "annotations": {
                **inherited.taken_annotations(vm).taken,
                names.INCARNATION: str(incarnation),
                names.KUBEVIRT_DOMAIN: vm.metadata.name,
                names.REQUESTED_CPU: spec.cpu_text,
                names.REQUESTED_MEMORY: spec.memory_text,
                **({names.PLACEMENT: checksums} if (checksums := placement.checksums(vm.spec)) else {}),
                **boot.annotation(boot.of_vm(vm, policy.boot_time), policy.speed),
                **usage_annotations(used, policy.reference),
            },
            "ownerReferences": [_owner(vm)],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65535,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "compute",
                    "image": IMAGE,
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "resources": {
                        "requests": {
                            "cpu": policy.reference.cpu_quantity(spec.cpu),
                            "memory": policy.reference.memory_quantity(spec.memory),
                        }
                    },
                }
            ],
            **placement.fields(vm.spec, policy, where),
        },
    }


def _owner(vm: VirtualMachine) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VM_KIND,
        "name": vm.metadata.name,
        "uid": vm.metadata.uid,
        "controller": True,
    }


def target(vm: VirtualMachine, claim: Claim, policy: LauncherPolicy) -> dict[str, Any]:
    """Build the pod that follows a claim's source pod. Raises RatioError."""
    spec = requested(vm)
    used = consumption(vm, spec).shares
    return manifest(vm, claim.target, spec, used, policy, where=placement.placement_of(claim))


def live_target(vm: VirtualMachine, claim: Claim, source: Pod, policy: LauncherPolicy) -> dict[str, Any]:
    """Build the target pod of a live move: the guest goes on, so it has the source pod's requests and metadata.

    Until the hand-over it uses nothing. Where it may run is the spec's of now. Raises RatioError.
    """
    annotations, spec = source.metadata.annotations, requested_by(source, vm)
    priority = placement.priority_class_of(source)
    of_target, where = placement.of_live_target(vm.spec, claim, vm.metadata.uid, priority)
    # What it took over, and not what the VM has by now: an edit of a label holds from the next start.
    metadata = msgspec.structs.replace(vm.metadata, labels=source.metadata.labels, annotations=annotations)
    labels_of = msgspec.structs.replace(vm, metadata=metadata, spec=of_target)
    body = manifest(labels_of, claim.target, spec, _shares("0", "0"), policy, where=where)
    body["metadata"]["labels"] |= labels(vm)
    checksums = placement.checksums(msgspec.structs.replace(vm.spec, priority_class_name=priority))
    recorded = {names.PLACEMENT: checksums} if checksums else {}
    kept = {key: text for key, text in body["metadata"]["annotations"].items() if key not in _NOT_OF_A_TARGET}
    body["metadata"]["annotations"] = {**kept, **recorded}
    return body


def _shares(cpu: str, memory: str) -> Shares:
    return Shares(
        parse_ratio(cpu, field="requested cpu", maximum=CPU_MAX),
        parse_ratio(memory, field="requested memory", maximum=MEMORY_MAX),
        cpu,
        memory,
    )
