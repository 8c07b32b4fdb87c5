"""The placement of a VM's pod: the VM's own fields, merged with the demands of the installation and of a migration.

Guarantees: no field of a VM loosens what the installation or a migration demands. The scheduler ORs the terms of a
required node affinity, so a demand is ANDed into each of the VM's terms; a term of its own beside them would allow what
it means to forbid. The VM's tolerations and preferences are added to the installation's.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec

from controller.domain import names, scheduling
from controller.domain.objects import Claim, VirtualMachine, VMSpec
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import naming
from controller.kube.kinds import Pod
from controller.kube.scheduling import (
    Affinity,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PreferredSchedulingTerm,
    Toleration,
)

DEFAULT_SCHEDULER: Final = "default-scheduler"
HOSTNAME: Final = "kubernetes.io/hostname"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_LOST: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""The taints of a node that its kubelet does not run, or does not report."""
_STAYS: Final = 300
"""Simulated seconds for which a pod tolerates them: kube-apiserver's --default-not-ready-toleration-seconds."""
_LONGEST_STAY: Final = 2**63 - 1
_HEAVIEST: Final = 100
"""The largest weight of a preference."""
_FIELDS: Final = (
    "scheduler_name",
    "node_selector",
    "affinity",
    "tolerations",
    "topology_spread_constraints",
    "priority_class_name",
)
_DEFAULTS: Final = VMSpec()
_NO_AFFINITY: Final = Affinity()
_SUM_LENGTH: Final = 8
"""Hexadecimal digits of a field's checksum: it only tells an edited field from an unchanged one."""


class PlacementError(ValueError):
    """A placement field that contradicts the installation. The message names the field and both values."""


class Placement(msgspec.Struct, frozen=True):
    """Constraints on the node of the next pod, beyond the policy's and the VM's: they only narrow the choice.

    `node`: the only node allowed. `avoid`: a node that is not allowed. `rather`: a preferred node. `rather_not`: a node
    that is used only if no other fits. `selector`: labels that the node must have, with their values, in order.
    """

    node: str | None = None
    avoid: str | None = None
    rather: str | None = None
    rather_not: str | None = None
    selector: tuple[tuple[str, str], ...] = ()

    def merged(self, own: Affinity | None) -> Affinity | None:
        """Return a VM's affinity, with these constraints ANDed into it; None if there is neither."""
        mine = self._preferred()
        term = self._required()
        if term is None and not mine:
            return own
        own = own or Affinity()
        of_nodes = own.node_affinity or NodeAffinity()
        return msgspec.structs.replace(
            own,
            node_affinity=NodeAffinity(
                _narrowed(of_nodes.required_during_scheduling_ignored_during_execution, term),
                (*of_nodes.preferred_during_scheduling_ignored_during_execution, *mine),
            ),
        )

    def _required(self) -> NodeSelectorTerm | None:
        fields = tuple(
            _named(operator, name) for operator, name in (("In", self.node), ("NotIn", self.avoid)) if name is not None
        )
        labels = tuple(NodeSelectorRequirement(key, "In", (value,)) for key, value in self.selector)
        return NodeSelectorTerm(labels, fields) if labels or fields else None

    def _preferred(self) -> tuple[PreferredSchedulingTerm, ...]:
        return tuple(
            PreferredSchedulingTerm(_HEAVIEST, NodeSelectorTerm(match_fields=(_named(operator, name),)))
            for operator, name in (("In", self.rather), ("NotIn", self.rather_not))
            if name is not None
        )


ANYWHERE: Final = Placement()


def _named(operator: str, node: str) -> NodeSelectorRequirement:
    return NodeSelectorRequirement("metadata.name", operator, (node,))


def _narrowed(own: NodeSelector | None, term: NodeSelectorTerm | None) -> NodeSelector | None:
    """AND a term into every term of a selector. An empty term matches no node, so it stays empty."""
    if term is None:
        return own
    if own is None:
        return NodeSelector((term,))
    return NodeSelector(
        tuple(
            NodeSelectorTerm(
                (*each.match_expressions, *term.match_expressions), (*each.match_fields, *term.match_fields)
            )
            if each != NodeSelectorTerm()
            else each
            for each in own.node_selector_terms
        )
    )


def placement_of(claim: Claim) -> Placement:
    """Return the constraints of a migration's claim on the target's node."""
    labels = tuple(sorted(claim.added_node_selector.items()))
    return Placement(node=claim.target_node, avoid=claim.source_node or None, selector=labels)


def at_start(vm: VirtualMachine, incarnation: int, *, rather_not: str | None) -> Placement:
    """Return the constraints on a pod that no migration places: the first one may have a node to begin on.

    A preference that is no node's name is left out: the API server would refuse the pod for it.
    """
    annotations = vm.metadata.annotations
    if rather_not is None and (incarnation > 0 or not annotations):
        return ANYWHERE
    annotations = annotations if incarnation == 0 else {}
    rather = annotations.get(names.START_NODE)
    return Placement(
        node=annotations.get(names.REQUIRED_START_NODE) or None,
        rather=rather if rather and naming.is_subdomain(rather) else None,
        rather_not=rather_not,
    )


def of_live_target(spec: VMSpec, claim: Claim, vm_uid: str, priority_class: str) -> tuple[VMSpec, Placement]:
    """Return the spec and the constraints of a live target pod: its source is barred as by KubeVirt.

    Anti-affinity on the VM's pods bars only nodes that have a hostname, so a source without one is barred by name. The
    guest goes on, so it keeps its priority class.
    """
    own = spec.affinity or Affinity()
    rules = dict(own.pod_anti_affinity or {})
    term = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {names.KUBEVIRT_CREATED_BY: vm_uid}}}
    rules[_REQUIRED] = [*rules.get(_REQUIRED, ()), term]
    apart = msgspec.structs.replace(own, pod_anti_affinity=rules)
    where = placement_of(claim)
    where = where if claim.barred_by_name else msgspec.structs.replace(where, avoid=None)
    return msgspec.structs.replace(spec, affinity=apart, priority_class_name=priority_class), where


class Requirements(msgspec.Struct, frozen=True):
    """What a VM and its installation require of a node, as far as it concerns that node alone. Hashable."""

    selector: tuple[tuple[str, str], ...] = ()
    required: NodeSelector | None = None
    tolerations: tuple[Toleration, ...] = ()


NO_REQUIREMENTS: Final = Requirements()


def requirements(spec: VMSpec, policy: LauncherPolicy) -> Requirements:
    """Return what a VM requires of a node. Raises PlacementError."""
    check(spec, policy)
    return Requirements(
        tuple(sorted({**spec.node_selector, **policy.node_selector}.items())),
        _required_of(spec),
        (*policy.tolerations, *spec.tolerations),
    )


def check(spec: VMSpec, policy: LauncherPolicy) -> None:
    """Check a VM's node selector and node affinity against the installation's selector. Raises PlacementError."""
    for key, value in spec.node_selector.items():
        wanted = policy.node_selector.get(key, value)
        if wanted != value:
            raise PlacementError(
                f"spec.nodeSelector has {key}={value}, but this installation runs VMs only on nodes with "
                f"{key}={wanted} (--node-selector)"
            )
    required = _required_of(spec)
    terms = required.node_selector_terms if required is not None else ()
    barred = [next(_barring(term, policy), None) for term in terms]
    if (first := barred[0] if barred else None) is not None and None not in barred:
        wanted = policy.node_selector[first.key]
        raise PlacementError(
            f"spec.affinity requires {first.key} {first.operator} {', '.join(first.values)}, but this installation "
            f"runs VMs only on nodes with {first.key}={wanted} (--node-selector)"
        )


def _required_of(spec: VMSpec) -> NodeSelector | None:
    """Return the nodes that a VM's own node affinity requires; None if it requires none in particular."""
    of_nodes = spec.affinity.node_affinity if spec.affinity is not None else None
    return of_nodes.required_during_scheduling_ignored_during_execution if of_nodes is not None else None


def _barring(term: NodeSelectorTerm, policy: LauncherPolicy) -> Iterator[NodeSelectorRequirement]:
    """Yield the requirements of a term that no node of the installation fulfils."""
    for wanted in term.match_expressions:
        if wanted.key in policy.node_selector and not scheduling.holds(wanted, policy.node_selector):
            yield wanted


def fields(spec: VMSpec, policy: LauncherPolicy, placement: Placement) -> dict[str, Any]:
    """Return the fields of the pod's spec that decide its node."""
    affinity = spec.affinity if placement is ANYWHERE else placement.merged(spec.affinity)
    selector = {**spec.node_selector, **policy.node_selector}
    found: dict[str, Any] = {"tolerations": [msgspec.to_builtins(each) for each in _tolerations(spec, policy)]}
    if selector:
        found["nodeSelector"] = selector
    if affinity is not None:
        found["affinity"] = _as_json(affinity)
    if spec.topology_spread_constraints:
        found["topologySpreadConstraints"] = list(spec.topology_spread_constraints)
    if spec.scheduler_name:
        found["schedulerName"] = spec.scheduler_name
    if spec.priority_class_name:
        found["priorityClassName"] = spec.priority_class_name
    return found


def _tolerations(spec: VMSpec, policy: LauncherPolicy) -> tuple[Toleration, ...]:
    """Return a pod's tolerations: how long it stays on a node that is not ready or unreachable is simulated time.

    At speed 1 the API server adds those of the two taints that it lacks (DefaultTolerationSeconds); it lacks one if no
    toleration is about this taint, whatever its operator.
    """
    own = (*policy.tolerations, *spec.tolerations)
    if policy.speed == 1:
        return own
    lacking = (
        Toleration(key, "Exists", "", "NoExecute", _STAYS) for key in _LOST if not any(_about(t, key) for t in own)
    )
    return tuple(
        msgspec.structs.replace(each, toleration_seconds=_real(each.toleration_seconds, policy.speed))
        if each.toleration_seconds is not None and any(_about(each, key) for key in _LOST)
        else each
        for each in (*own, *lacking)
    )


def _about(toleration: Toleration, key: str) -> bool:
    return toleration.key in ("", key) and toleration.effect in ("", "NoExecute")


def _real(simulated: int, speed: float) -> int:
    """Return whole real seconds, at least one; 0 or less stays, and means at once."""
    return min(max(1, round(simulated / speed)), _LONGEST_STAY) if simulated > 0 else simulated


def _as_json(value: Affinity) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def checksums(spec: VMSpec) -> str:
    """Return `field:checksum,…` of the placement fields that a spec sets; empty if it sets none. A name is its own.

    The pod records it, so that an edit of the spec is seen although the cache of pods has no affinity.
    """
    names_only = spec.scheduler_name or spec.priority_class_name
    if not (names_only or spec.node_selector or spec.affinity or spec.tolerations or spec.topology_spread_constraints):
        return ""
    return ",".join(
        f"{_json_name(name)}:{value if isinstance(value, str) else _checksum(value)}"
        for name in _FIELDS
        if (value := getattr(spec, name)) != getattr(_DEFAULTS, name)
    )


def _checksum(value: Any) -> str:
    return sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:_SUM_LENGTH]


def scheduler_of(pod: Pod) -> str:
    """Return the schedulerName with which a pod was made."""
    return _name_of(pod, "schedulerName") or DEFAULT_SCHEDULER


def priority_class_of(pod: Pod) -> str:
    """Return the priorityClassName with which a pod was made; empty if it had none."""
    return _name_of(pod, "priorityClassName")


def _name_of(pod: Pod, field: str) -> str:
    recorded = pod.metadata.annotations.get(names.PLACEMENT, "").split(",")
    return next((each.partition(":")[2] for each in recorded if each.startswith(f"{field}:")), "")


def left_to_scheduler(spec: VMSpec) -> tuple[str, ...]:
    """Return the fields, by their JSON names, that may bar a node although preflight found room there.

    They depend on other pods, or on another scheduler's rules. A mere preference bars no node.
    """
    spread = any(each.get("whenUnsatisfiable") != "ScheduleAnyway" for each in spec.topology_spread_constraints)
    affinity = spec.affinity or _NO_AFFINITY
    found = {
        "schedulerName": spec.scheduler_name not in ("", DEFAULT_SCHEDULER),
        "topologySpreadConstraints": spread,
        "podAffinity": bool((affinity.pod_affinity or {}).get(_REQUIRED)),
        "podAntiAffinity": bool((affinity.pod_anti_affinity or {}).get(_REQUIRED)),
    }
    return tuple(name for name, held in found.items() if held)


def differing(recorded: str, now: str) -> tuple[str, ...]:
    """Return the placement fields, by their JSON names, in which two checksums differ."""
    before, after = (set(filter(None, text.split(","))) for text in (recorded, now))
    return tuple(sorted({each.partition(":")[0] for each in before ^ after}))


def _json_name(name: str) -> str:
    return VMSpec.__struct_encode_fields__[VMSpec.__struct_fields__.index(name)]
