"""Fleets to plan a drain of: nodes of 32 CPUs and 256 GiB, and VMs that run on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controller.domain.copying.policy import CopyingPolicy
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy, VirtualMachine, VirtualMachineMigration, VMStatus
from controller.domain.settings import PublishedSettings
from controller.domain.vm.policy import FAKE_NODES, LauncherPolicy
from controller.kube.kinds import Container, ContainerResources, Node, NodeSpec, NodeStatus, Pod, Requests, Taint
from controller.kube.meta import Condition, ObjectMeta
from controller.operations.planning import planner
from controller.operations.planning.planner import Known
from controller.operations.planning.values import Plan
from tests.unit.domain import builders

GIB = 2**30


def node(name: str, *, cpu: str = "32", ready: bool = True, labels: Mapping[str, str] | None = None) -> Node:
    """Return a fake node."""
    return Node(
        ObjectMeta(name=name, labels={**FAKE_NODES, **(labels or {})}),
        NodeSpec(taints=() if ready else (Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"),)),
        NodeStatus({"cpu": cpu, "memory": "256Gi", "pods": "110"}, (Condition("Ready", "True" if ready else "False"),)),
    )


def settings(
    *, cluster: int = 5, outbound: int = 2, live: bool = False, speed: float = 1.0, boot: float = 0.0, **copying: Any
) -> PublishedSettings:
    """Return a controller's settings."""
    return PublishedSettings(
        LauncherPolicy(boot_time=boot, speed=speed),
        Limits(cluster, outbound),
        Strategy.LIVE if live else Strategy.RECREATE,
        CopyingPolicy(**copying),
    )


def vm(name: str, on: str, **options: Any) -> tuple[VirtualMachine, Pod]:
    """Return a VM that runs on a node, and its pod; `spec`: further fields of its spec; `priority`: its pod's."""
    status = VMStatus(
        phase=options.pop("phase", "Running"),
        node_name=on,
        incarnation=0,
        pod_uid=f"pod-{name}-0",
        pod_name=f"virt-launcher-{name}",
        migration=options.pop("claim", None),
    )
    spec, priority = options.pop("spec", {}), options.pop("priority", 0)
    terminating, finalizers = options.pop("terminating", False), options.pop("held_by", ())
    found = builders.vm(name=name, uid=name, status=status, **options)
    sound = found if found.spec.resources.cpu != "?" else builders.vm(name=name, uid=name, status=status)
    pod = builders.pod(sound, phase="Running", node=on, terminating=terminating)
    pod = msgspec.structs.replace(
        pod,
        metadata=msgspec.structs.replace(pod.metadata, finalizers=finalizers),
        spec=msgspec.structs.replace(pod.spec, priority=priority),
    )
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, **spec)), pod


def other_pod(name: str, on: str, cpu: str, *, priority: int = 0) -> Pod:
    """Return a pod of another owner."""
    requests = ContainerResources(Requests(cpu=cpu, memory="1Gi"))
    pod = Pod(ObjectMeta(name=name, namespace="web", uid=name))
    spec = msgspec.structs.replace(
        pod.spec, node_name=on, priority=priority, containers=(Container("app", resources=requests),)
    )
    return msgspec.structs.replace(pod, spec=spec, status=msgspec.structs.replace(pod.status, phase="Running"))


def known(
    nodes: Sequence[Node],
    vms: Sequence[tuple[VirtualMachine, Pod]],
    rules: PublishedSettings | None = None,
    *,
    pods: Sequence[Pod] = (),
    migrations: Sequence[VirtualMachineMigration] = (),
    unread: tuple[str, ...] = (),
) -> Known:
    """Return what is read of a cluster, at `builders.NOW`."""
    return Known(
        tuple(nodes),
        tuple(machine for machine, _ in vms),
        (*(pod for _, pod in vms), *pods),
        tuple(migrations),
        {None: rules or settings()},
        builders.NOW,
        unread,
    )


def plan(of: Known, *names: str, parallel_nodes: int = 1) -> Plan:
    """Plan the drain of some nodes."""
    return planner.plan(of, names, parallel_nodes=parallel_nodes)
