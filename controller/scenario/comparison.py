"""Compares a fleet with the cluster: which objects are missing, and which existing objects conflict with it.

Guarantees: pure; an object belongs to the fleet only by its label; an existing object is either equal to the desired
one or a conflict, and is never changed. The consumption of a VM, the node it began on, added labels, annotations and
taints, a cordon and a stop are no conflicts: users change these of a loaded scenario.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.vm import placement
from controller.kube.kinds import Node
from controller.kube.meta import ObjectMeta
from controller.kube.quantity import QuantityError, parse_quantity
from controller.scenario.fleet import DesiredNode, DesiredVM, Fleet


@dataclass(frozen=True, slots=True)
class Comparison:
    """The desired nodes and VMs that do not exist yet, and one line about each existing object that conflicts."""

    nodes: tuple[DesiredNode, ...]
    vms: tuple[DesiredVM, ...]
    conflicts: tuple[str, ...]
    unrequired: tuple[str, ...] = ()
    """VMs that are to begin on one node exactly, but exist without this requirement: they keep what they began with."""


def compare(fleet: Fleet, *, nodes: Iterable[Node], vms: Iterable[VirtualMachine]) -> Comparison:
    """Compare a fleet with all nodes of the cluster, and all VMs of its namespace."""
    nodes_there = {node.metadata.name: node for node in nodes}
    vms_there = {vm.metadata.name: vm for vm in vms}
    return Comparison(
        nodes=tuple(desired for desired in fleet.nodes if desired.name not in nodes_there),
        vms=tuple(desired for desired in fleet.vms if desired.name not in vms_there),
        conflicts=tuple(_conflicts(fleet, nodes_there, vms_there)),
        unrequired=tuple(
            desired.name
            for desired in fleet.vms
            if desired.exact
            and (vm := vms_there.get(desired.name)) is not None
            and vm.metadata.annotations.get(names.REQUIRED_START_NODE) != desired.node
        ),
    )


def _conflicts(fleet: Fleet, nodes: Mapping[str, Node], vms: Mapping[str, VirtualMachine]) -> Iterator[str]:
    for desired in fleet.nodes:
        if (node := nodes.get(desired.name)) is not None and (
            why := node_conflict(desired, node, fleet.name)
        ) is not None:
            yield why
    for desired_vm in fleet.vms:
        if (vm := vms.get(desired_vm.name)) is not None and (
            why := vm_conflict(desired_vm, vm, fleet.name)
        ) is not None:
            yield why


def node_conflict(desired: DesiredNode, node: Node, fleet: str) -> str | None:
    """Return why an existing node differs from the desired one; None if it does not."""
    name = f"node {desired.name}"
    if (foreign := _foreign(name, node.metadata, fleet)) is not None:
        return foreign
    given = node.status.allocatable
    for resource, wanted in (("cpu", desired.cpu), ("memory", desired.memory), ("pods", str(desired.pods))):
        if not _same_quantity(given.get(resource), wanted):
            return _differs(name, resource, given.get(resource), wanted, fleet)
    for label, value in desired.labels.items():
        if node.metadata.labels.get(label) != value:
            return _differs(name, f"label {label}", node.metadata.labels.get(label), value, fleet)
    for taint in desired.taints:
        if taint not in node.spec.taints:
            return f"{name} lacks the taint {taint.key}={taint.value}:{taint.effect}: {_remedy(fleet)}"
    return None


def vm_conflict(desired: DesiredVM, vm: VirtualMachine, fleet: str) -> str | None:
    """Return why an existing VM differs from the desired one; None if it does not."""
    name = f"VM {vm.metadata.key}"
    if (foreign := _foreign(name, vm.metadata, fleet)) is not None:
        return foreign
    given = vm.spec.resources
    for resource, has, wanted in (("cpu", given.cpu, desired.cpu), ("memory", given.memory, desired.memory)):
        if not _same_ratio(has, wanted):
            return _differs(name, resource, has, wanted, fleet)
    of_group = desired.template
    for what, there, written in (
        ("label", vm.metadata.labels, of_group.labels),
        ("annotation", vm.metadata.annotations, of_group.annotations),
    ):
        for key, text in written.items():
            if there.get(key) != text:
                return _differs(name, f"{what} {key}", there.get(key), text, fleet)
    if others := placement.differing(placement.checksums(vm.spec), of_group.checksums):
        return f"{name} has another {' and another '.join(others)}: {_remedy(fleet)}"
    return None


def _foreign(name: str, metadata: ObjectMeta, fleet: str) -> str | None:
    """Return why an object is foreign to the fleet, or is being deleted; None if it is the fleet's."""
    owner = metadata.labels.get(names.SCENARIO_LABEL)
    if owner == fleet:
        terminating = metadata.deletion_timestamp is not None
        return f"{name} is being deleted: try again once it is deleted" if terminating else None
    origin = f"belongs to {owner}" if owner is not None else f"{fleet} did not create it"
    return f"{name} exists already, and {origin}: rename one of them, or delete it"


def _differs(name: str, what: str, has: object, wanted: str, fleet: str) -> str:
    return f"{name} has {what} {has if has is not None else 'unset'}, not {wanted}: {_remedy(fleet)}"


def _remedy(fleet: str) -> str:
    return f"first `vmsim unload {fleet}`, or load it as it was"


def _same_quantity(has: str | None, wanted: str) -> bool:
    try:
        return has is not None and parse_quantity(has) == parse_quantity(wanted)
    except QuantityError:
        return has == wanted


def _same_ratio(has: object, wanted: str) -> bool:
    try:
        return isinstance(has, str) and Decimal(has) == Decimal(wanted)
    except InvalidOperation:
        return False
