"""The objects of a fleet that are not ready yet, and why.

Guarantees: pure; the reason is the scheduler's or the controller's own. An object on which nothing has acted is
`silent`, with the likely cause. A VM that is stopped is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.domain.objects import VirtualMachine
from controller.domain.vm.status import BOOTS, Phase, ready
from controller.engine.store import Store
from controller.kube.kinds import Node
from controller.scenario.fleet import Fleet

NO_CONTROLLER: Final = "no sign of a controller; does `vmsim controller` run, and watch this namespace?"
NO_KWOK: Final = "no sign of KWOK; does it run, and manage nodes annotated kwok.x-k8s.io/node=fake?"
_STARTUP_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of a new node until it is Ready."""
_UNEXPLAINED: Final = ("GuestNotRunning", "PodTerminating")
"""Reasons of the Ready condition that explain no more than the phase does, unless the guest boots."""
_DELETED: Final = "deleted meanwhile"


@dataclass(frozen=True, slots=True)
class Lack:
    """An object that is not ready, and why. `silent`: nothing has acted on it; `suspicion` is the likely cause."""

    name: str
    why: str
    silent: bool = False
    suspicion: str = ""


def lacking(fleet: Fleet, namespace: str, nodes: Store[Node], vms: Store[VirtualMachine]) -> Iterator[Lack]:
    """Yield the nodes and VMs of a fleet that are not ready."""
    for desired in fleet.nodes:
        node = nodes.get(f"/{desired.name}")
        if node is None:
            yield Lack(f"node {desired.name}", _DELETED)
        elif any(taint.key in _STARTUP_TAINTS for taint in node.spec.taints):
            yield Lack(f"node {desired.name}", "not ready", silent=True, suspicion=NO_KWOK)
    for desired_vm in fleet.vms:
        vm = vms.get(f"{namespace}/{desired_vm.name}")
        name = f"VM {desired_vm.name}"
        if vm is None or vm.metadata.deletion_timestamp is not None:
            yield Lack(name, _DELETED)
        elif vm.status.phase == Phase.RUNNING or not vm.spec.running:
            continue
        elif not vm.status.conditions:
            yield Lack(name, vm.status.phase, silent=True, suspicion=NO_CONTROLLER)
        else:
            yield Lack(name, _reason(vm))


def _reason(vm: VirtualMachine) -> str:
    condition = ready(vm)
    if condition is None or (condition.reason in _UNEXPLAINED and BOOTS not in condition.message):
        return vm.status.phase
    return ": ".join(filter(None, (vm.status.phase, condition.message)))
