"""The launcher pod: the manifest a VM becomes, and the metadata kept current on it afterwards.

Guarantees: the manifest passes the `restricted` Pod Security level, asks for exactly ratio × reference node,
mounts nothing, and carries a controller ownerRef without blockOwnerDeletion (which would need a permission
on finalizers elsewhere).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final

import msgspec

from controller.domain import names
from controller.domain.objects import Claim, VirtualMachine
from controller.domain.ratio import CPU_MAX, DEFAULT_REFERENCE, MEMORY_MAX, RatioError, ReferenceNode, parse_ratio
from controller.kube.kinds import Pod

IMAGE: Final = "registry.k8s.io/pause:3.10.1"
"""Does nothing, and a real node could pull it."""

FAKE_NODES: Final[Mapping[str, str]] = MappingProxyType({"type": "kwok"})
"""Default selector: a simulated VM never lands on a real node of a shared cluster by accident."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint that launcher pods tolerate: any value if `value` is None, any effect if `effect` is None."""

    key: str
    value: str | None = None
    effect: str | None = None

    def manifest(self) -> dict[str, str]:
        """Write it as the pod's spec has it."""
        written = {"key": self.key, "operator": "Exists" if self.value is None else "Equal"}
        written |= {} if self.value is None else {"value": self.value}
        return written | ({} if self.effect is None else {"effect": self.effect})


FAKE_TAINT: Final = Toleration(key="kwok.x-k8s.io/node", effect="NoSchedule")
"""The taint that keeps everything else off fake nodes."""


@dataclass(frozen=True, slots=True)
class LauncherPolicy:
    """What every launcher pod has in common."""

    reference: ReferenceNode = DEFAULT_REFERENCE
    node_selector: Mapping[str, str] = field(default_factory=lambda: FAKE_NODES)
    tolerations: tuple[Toleration, ...] = (FAKE_TAINT,)


class Placement(msgspec.Struct, frozen=True):
    """What a migration asks of the next pod's node: to be one, not to be one, to have labels. Only narrows.

    `rather_not` is a wish: the node is taken when there is no other. `selector`: labels with their values, in order.
    """

    node: str | None = None
    avoid: str | None = None
    rather_not: str | None = None
    selector: tuple[tuple[str, str], ...] = ()

    def affinity(self) -> dict[str, Any]:
        """Write it as node affinity; empty when nothing is asked."""
        fields = [
            {"key": "metadata.name", "operator": operator, "values": [name]}
            for operator, name in (("In", self.node), ("NotIn", self.avoid))
            if name is not None
        ]
        labels = [{"key": key, "operator": "In", "values": [value]} for key, value in self.selector]
        term = {**({"matchFields": fields} if fields else {}), **({"matchExpressions": labels} if labels else {})}
        rules: dict[str, Any] = {}
        if term:
            rules["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
        if self.rather_not is not None:
            wish = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [self.rather_not]}]}
            rules["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 100, "preference": wish}]
        return {"affinity": {"nodeAffinity": rules}} if rules else {}


ANYWHERE: Final = Placement()


def placement_of(claim: Claim) -> Placement:
    """Return what a migration's claim asks of the target's node."""
    labels = tuple(sorted(claim.added_node_selector.items()))
    return Placement(node=claim.target_node, avoid=claim.source_node or None, selector=labels)


class Shares(msgspec.Struct, frozen=True):
    """CPU and memory as shares of the reference node, with the strings they were read from."""

    cpu: Decimal
    memory: Decimal
    cpu_text: str
    memory_text: str

    def differs(self, cpu: str | None, memory: str | None) -> bool:
        """Whether two recorded ratios say something else; one that was lost says nothing."""
        recorded = ((self.cpu, self.cpu_text, cpu), (self.memory, self.memory_text, memory))
        return any(text not in (None, own_text) and not _equals(own, text) for own, own_text, text in recorded)


class Consumption(msgspec.Struct, frozen=True):
    """What a VM uses now, and why an annotation that says so was not believed."""

    shares: Shares
    problems: tuple[str, ...] = ()


def _equals(ratio: Decimal, text: str) -> bool:
    try:
        return Decimal(text) == ratio
    except InvalidOperation:
        return False


def requested(vm: VirtualMachine) -> Shares:
    """Read the spec's ratios. Raises RatioError when one, or any other field, slipped past the schema."""
    if vm.unreadable and (problem := vm.spec_problem) is not None:
        # The defaults that stand for what was not read may be another VM's.
        raise RatioError(problem)
    resources = vm.spec.resources
    return Shares(
        cpu=parse_ratio(resources.cpu, field="spec.resources.cpu", maximum=CPU_MAX),
        memory=parse_ratio(resources.memory, field="spec.resources.memory", maximum=MEMORY_MAX),
        cpu_text=resources.cpu,
        memory_text=resources.memory,
    )


def consumption(vm: VirtualMachine, spec: Shares) -> Consumption:
    """Read the consumption annotations; an absent or unusable one falls back to the spec."""
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
    """Annotations of a VM that say what it uses; None leaves one out: it uses what it requests."""
    wanted = {names.CPU_CONSUMPTION: cpu, names.MEMORY_CONSUMPTION: memory}
    return {key: value for key, value in wanted.items() if value is not None}


def name(vm: VirtualMachine, incarnation: int) -> str:
    """Name of the pod of one incarnation, which no other VM's pod ever has."""
    return names.pod_name(vm.metadata.name, vm.metadata.uid, incarnation)


def labels(vm: VirtualMachine) -> dict[str, str]:
    """Labels a launcher pod always has; the pod watch depends on the first, and on the VM's class."""
    found = {
        names.VM_LABEL: vm.metadata.name,
        names.KUBEVIRT_APP_LABEL: names.KUBEVIRT_APP,
        names.KUBEVIRT_CREATED_BY: vm.metadata.uid,
        names.KUBEVIRT_VM_NAME: vm.metadata.name,
    }
    of_class = vm.metadata.labels.get(names.CONTROLLER_CLASS)
    return found if of_class is None else {**found, names.CONTROLLER_CLASS: of_class}


def label_changes(vm: VirtualMachine, pod: Pod) -> dict[str, str | None]:
    """Return the labels that a pod has to get, and as None the one it has to lose."""
    wanted: dict[str, str | None] = {names.CONTROLLER_CLASS: None, **labels(vm)}
    return {key: value for key, value in wanted.items() if pod.metadata.labels.get(key) != value}


def usage_annotations(used: Shares, reference: ReferenceNode) -> dict[str, str]:
    """Annotations that follow the VM's consumption: ours, and KWOK's that `kubectl top` can read."""
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
    placement: Placement = ANYWHERE,
) -> dict[str, Any]:
    """Build the pod of one incarnation of a VM."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(vm, incarnation),
            "namespace": vm.metadata.namespace,
            "labels": labels(vm),
            "annotations": {
                names.INCARNATION: str(incarnation),
                names.KUBEVIRT_DOMAIN: vm.metadata.name,
                names.REQUESTED_CPU: spec.cpu_text,
                names.REQUESTED_MEMORY: spec.memory_text,
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
            "tolerations": [toleration.manifest() for toleration in policy.tolerations],
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
            **({"nodeSelector": dict(policy.node_selector)} if policy.node_selector else {}),
            **placement.affinity(),
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
    """Build the pod that follows when a claim is put on a VM. Raises RatioError."""
    spec = requested(vm)
    used = consumption(vm, spec).shares
    return manifest(vm, claim.source_incarnation + 1, spec, used, policy, placement=placement_of(claim))
