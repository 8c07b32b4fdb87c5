"""The stage of a run: a namespace and two fake nodes of its own, foreign objects, and the acts of a user.

Guarantees: runs on different stages share only the control plane; `reset` leaves a stage as `build` made it. Only node
`a` accepts pods until a scenario opens `b`, so the first node of a VM is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from controller.controlplane.nodes import NodeCapacity, node_manifest
from controller.domain import names, ownership
from controller.domain.objects import Strategy, VirtualMachine
from controller.domain.ratio import DEFAULT_REFERENCE
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm.policy import FAKE_TAINT
from controller.kube import errors
from controller.kube.client import Client
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta, ObjectOnly
from controller.kube.resources import EVENTS, NODES, PODS, Resource
from tests.faults.witness import ClusterState, Witness

_LABEL: Final = "faults.test/stage"
_HOLD: Final = "faults.test/hold"
_DEADLINE: Final = 10.0
_TIMEOUT: Final = 60.0
_POLL: Final = 0.1
_NAMESPACES: Final = Resource("", "v1", "namespaces", ObjectOnly)
_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", ObjectOnly)
VM: Final = "vm"
"""The VM of every scenario."""
_MEMORY: Final = "0.15"
MEMORY: Final = float(DEFAULT_REFERENCE.memory_of(Decimal(_MEMORY)))
"""Bytes that each VM has, and uses."""
_FOREIGN_VM: Final = "foreign"
_KINDS: Final[tuple[Resource[Any], ...]] = (MIGRATIONS, VIRTUAL_MACHINES, PODS)
_FOREIGN_PODS: Final = ("virt-launcher-vm-00000", "virt-launcher-foreign-00000", "virt-launcher-foreign-00001")
_FOREIGN_OBJECTS: Final = 1 + len(_FOREIGN_PODS)


@dataclass(frozen=True, slots=True)
class Stage:
    """One namespace with its nodes. `client` is the administrator's, past the proxy."""

    client: Client
    name: str

    @property
    def node_a(self) -> str:
        """The node that accepts pods from the start."""
        return f"{self.name}-a"

    @property
    def node_b(self) -> str:
        """The node that accepts pods once it is opened."""
        return f"{self.name}-b"

    @property
    def node_selector(self) -> str:
        """The value of the flag that restricts a controller's pods to these nodes."""
        return f"{_LABEL}={self.name}"

    # --- building ----------------------------------------------------------------------------------------

    async def build(self) -> None:
        """Create the namespace, the nodes and the foreign objects."""
        await self.client.create(_NAMESPACES, {"metadata": {"name": self.name}}, server_deadline=_DEADLINE)
        await self._nodes()
        # Until the namespace has its service account, the API server refuses every pod in it.
        await self._eventually(self._has_account)
        await self._create_foreign()

    async def reset(self) -> None:
        """Delete what a run has left, but the foreign objects."""
        for resource in _KINDS:
            for item in await self._left(resource):
                await self._remove(resource, item.metadata)
        await self._eventually(self._empty)
        if await self._harmed():
            for resource in _KINDS:
                for item in (await self.client.list_page(resource, namespace=self.name, limit=0)).items:
                    await self._remove(resource, item.metadata)
            await self._eventually(self._deserted)
            await self._create_foreign()
        for event in (await self.client.list_page(EVENTS, namespace=self.name, limit=0)).items:
            await self._remove(EVENTS, event.metadata)
        await self._nodes()

    async def _nodes(self) -> None:
        for name, closed in ((self.node_a, False), (self.node_b, True)):
            manifest = node_manifest(name, NodeCapacity())
            manifest["metadata"]["labels"] |= {_LABEL: self.name}
            manifest["spec"]["unschedulable"] = closed
            with suppress(errors.AlreadyExistsError):
                await self.client.create(NODES, manifest, server_deadline=_DEADLINE)
        await self.open(self.node_a)
        await self.close(self.node_b)

    async def _free(self, name: str) -> bool:
        """Whether a node accepts pods."""
        node = await self.client.get(NODES, name)
        return bool(node.status.allocatable) and {taint.key for taint in node.spec.taints} == {FAKE_TAINT.key}

    async def _has_account(self) -> bool:
        try:
            await self.client.get(_ACCOUNTS, "default", namespace=self.name)
        except errors.NotFoundError:
            return False
        return True

    async def _create_foreign(self) -> None:
        """Create foreign objects that look like ours: a labelled pod without owner, another class's VM with pods."""
        foreign = await self.client.create(
            VIRTUAL_MACHINES,
            _vm(_FOREIGN_VM, labels={names.CONTROLLER_CLASS: "other"}),
            namespace=self.name,
            server_deadline=_DEADLINE,
        )
        reference = {
            "apiVersion": names.API_VERSION,
            "kind": names.VM_KIND,
            "name": foreign.metadata.name,
            "uid": foreign.metadata.uid,
        }
        metadatas: tuple[dict[str, Any], ...] = (
            {"labels": {names.VM_LABEL: VM}},
            # Without its class's label the controller under test sees the pod, although its VM is foreign.
            {"labels": {names.VM_LABEL: _FOREIGN_VM}, "ownerReferences": [{**reference, "controller": True}]},
            {"labels": {names.VM_LABEL: _FOREIGN_VM}, "ownerReferences": [{**reference, "controller": False}]},
        )
        for name, metadata in zip(_FOREIGN_PODS, metadatas, strict=True):
            pod = {
                "metadata": {"name": name, **metadata},
                "spec": {
                    # No other client touches a gated pod, so every change is the controller's.
                    "schedulingGates": [{"name": "faults.test/never"}],
                    "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10.1"}],
                },
            }
            await self.client.create(PODS, pod, namespace=self.name, server_deadline=_DEADLINE)

    async def _harmed(self) -> bool:
        """Whether a run has deleted a foreign object or left another: the next run must not start so."""
        return len(await self._present()) != _FOREIGN_OBJECTS

    async def _deserted(self) -> bool:
        return not await self._present()

    async def _present(self) -> list[Any]:
        return [
            item
            for resource in _KINDS
            for item in (await self.client.list_page(resource, namespace=self.name, limit=0)).items
        ]

    async def _left(self, resource: Resource[Any]) -> list[Any]:
        page = await self.client.list_page(resource, namespace=self.name, limit=0)
        return [item for item in page.items if not is_foreign(item.metadata)]

    async def _empty(self) -> bool:
        return not [item for resource in _KINDS for item in await self._left(resource)]

    async def _remove(self, resource: Resource[Any], metadata: ObjectMeta) -> None:
        with suppress(errors.NotFoundError):
            if metadata.finalizers:
                await self.client.merge_patch(
                    resource, metadata.name, {"metadata": {"finalizers": None}}, namespace=self.name
                )
            await self.client.delete(resource, metadata.name, namespace=self.name, uid=metadata.uid, grace_seconds=0)

    async def _eventually(self, holds: Any) -> None:
        async with asyncio.timeout(_TIMEOUT):
            while not await holds():  # noqa: ASYNC110 - the server's state is polled
                await asyncio.sleep(_POLL)

    # --- acts of a user ----------------------------------------------------------------------------------

    async def create_vm(self, name: str = VM, *, running: bool = True) -> None:
        """Create a VM."""
        await self.client.create(
            VIRTUAL_MACHINES, _vm(name, running=running), namespace=self.name, server_deadline=_DEADLINE
        )

    async def run_vm(self, name: str = VM, *, running: bool) -> None:
        """Start or stop a VM."""
        await self.client.merge_patch(VIRTUAL_MACHINES, name, {"spec": {"running": running}}, namespace=self.name)

    async def delete_vm(self, name: str = VM) -> None:
        """Delete a VM."""
        vm = await self.client.get(VIRTUAL_MACHINES, name, namespace=self.name)
        await self.client.delete(VIRTUAL_MACHINES, name, namespace=self.name, uid=vm.metadata.uid)

    async def migrate(self, vm: str = VM, *, strategy: Strategy = Strategy.RECREATE, **metadata: Any) -> None:
        """Create a migration of the VM's name."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.MIGRATION_KIND,
            "metadata": {"name": vm, **metadata},
            "spec": {"vmName": vm, "strategy": strategy},
        }
        await self.client.create(MIGRATIONS, body, namespace=self.name, server_deadline=_DEADLINE)

    async def cancel(self, name: str = VM) -> None:
        """Cancel a migration."""
        await self.client.merge_patch(MIGRATIONS, name, {"spec": {"cancel": True}}, namespace=self.name)

    async def evict(self, pod: Pod) -> None:
        """Evict a pod, as kubectl drain does."""
        evictions = Resource("", "v1", f"pods/{pod.metadata.name}/eviction", ObjectOnly)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.metadata.name}}
        await self.client.create(evictions, body, namespace=self.name, server_deadline=_DEADLINE)

    async def fail(self, pod: Pod) -> None:
        """Have a pod fail."""
        await self._patch(pod, {"status": {"phase": "Failed"}}, subresource="status")

    async def delete_pod(self, pod: Pod) -> None:
        """Delete a pod with a grace period of 0."""
        await self.client.delete(PODS, pod.metadata.name, namespace=self.name, uid=pod.metadata.uid, grace_seconds=0)

    async def hold(self, pod: Pod) -> None:
        """Add a finalizer to a pod, so that it terminates until it is released."""
        await self._patch(pod, {"metadata": {"finalizers": [_HOLD]}})

    async def release(self, pod: Pod) -> None:
        """Remove the finalizer of a pod."""
        await self._patch(pod, {"metadata": {"finalizers": None}})

    async def close(self, node: str) -> None:
        """Cordon a node."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": True}})

    async def open(self, node: str) -> None:
        """Uncordon a node, and wait until its controller has removed the taint."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": None}})
        await self._eventually(lambda: self._free(node))

    async def delete_node(self, name: str) -> None:
        """Delete a node."""
        node = await self.client.get(NODES, name)
        await self.client.delete(NODES, name, uid=node.metadata.uid)

    async def _patch(self, pod: Pod, body: Mapping[str, Any], *, subresource: str | None = None) -> None:
        await self.client.merge_patch(PODS, pod.metadata.name, body, namespace=self.name, subresource=subresource)


class StuckError(Exception):
    """A step of a scenario did not see the effect of the one before in time."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The means of a scenario: the stage, and the witness of its objects."""

    stage: Stage
    witness: Witness
    timeout: float = _TIMEOUT
    """Seconds that a step may wait for the one before."""

    def vm(self, name: str = VM) -> VirtualMachine:
        """Return the last seen state of the VM."""
        vm = self.witness.cluster.vm(name)
        if vm is None:
            raise StuckError(f"VM {name} does not exist")
        return vm

    def pod(self, name: str = VM) -> Pod:
        """Return the VM's only pod."""
        pods = self.witness.cluster.pods_of(self.vm(name))
        if len(pods) != 1:
            raise StuckError(f"VM {name} has {len(pods)} pods where one was expected")
        return pods[0]

    def ends(self) -> tuple[Pod, Pod]:
        """Return the source and the target pod of the VM's live migration."""
        source, target = sorted(
            self.witness.cluster.pods_of(self.vm()), key=lambda pod: ownership.incarnation(pod) or 0
        )
        return source, target

    async def until(self, wanted: Any, what: str) -> None:
        """Wait for a state before the next step; `what` names it in the error."""
        if not await self.witness.until(wanted, seconds=self.timeout):
            raise StuckError(f"not within {self.timeout:.0f} s: {what}")

    async def running(self, *vms: str) -> None:
        """Wait until VMs run and their statuses say so."""
        await self.until(lambda seen: all(runs(seen, name) for name in vms or (VM,)), "the VM runs")


def is_foreign(metadata: ObjectMeta) -> bool:
    """Whether an object is foreign: the controller under test must not touch it."""
    return metadata.name == _FOREIGN_VM or metadata.name in _FOREIGN_PODS


def runs(seen: ClusterState, name: str = VM) -> bool:
    """Whether a VM runs in its only pod, its status says so, and no migration claims it."""
    vm = seen.vm(name)
    if vm is None or vm.status.phase != "Running" or vm.status.migration is not None:
        return False
    pods = seen.pods_of(vm)
    ready = vm.status.conditions[0]
    return (
        len(pods) == 1
        and not pods[0].terminating
        and pods[0].status.phase == "Running"
        and vm.status.pod_uid == pods[0].metadata.uid
        and (ready.type, ready.status) == ("Ready", "True")
    )


def _vm(name: str, *, running: bool = True, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VM_KIND,
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"resources": {"cpu": "0.10", "memory": _MEMORY}, "running": running},
    }
