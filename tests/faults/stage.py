"""Where a run takes place: a namespace and two fake nodes of its own, strangers among its pods, and what a user can do.

Guarantees: runs on different stages share nothing but the control plane; `reset` leaves a stage as `build` made it.
Only node `a` takes pods until a scenario opens `b`, so that it is known where a VM begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from controller.controlplane.nodes import NodeCapacity, node_manifest
from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.vm.launcher import FAKE_TAINT
from controller.kube import errors
from controller.kube.client import Client
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta, ObjectOnly
from controller.kube.resources import EVENTS, NODES, PODS, Resource
from tests.faults.witness import ClusterState, Witness

_LABEL: Final = "faults.test/stage"
_HELD: Final = "faults.test/held"
_DEADLINE: Final = 10.0
_PATIENCE: Final = 60.0
_POLL: Final = 0.1
_NAMESPACES: Final = Resource("", "v1", "namespaces", ObjectOnly)
_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", ObjectOnly)
VM: Final = "vm"
"""The VM that every scenario is about."""
_FOREIGN: Final = "foreign"
_KINDS: Final[tuple[Resource[Any], ...]] = (MIGRATIONS, VIRTUAL_MACHINES, PODS)
_STRANGE_PODS: Final = ("virt-launcher-vm-00000", "virt-launcher-foreign-00000", "virt-launcher-foreign-00001")
_STRANGERS: Final = 1 + len(_STRANGE_PODS)


@dataclass(frozen=True, slots=True)
class Stage:
    """One namespace with its nodes. `client` is the administrator's, past the proxy."""

    client: Client
    name: str

    @property
    def node_a(self) -> str:
        """The node that takes pods from the start."""
        return f"{self.name}-a"

    @property
    def node_b(self) -> str:
        """The node that takes pods when it is opened."""
        return f"{self.name}-b"

    @property
    def node_selector(self) -> str:
        """The flag that keeps a controller's pods on these nodes."""
        return f"{_LABEL}={self.name}"

    # --- building ----------------------------------------------------------------------------------------

    async def build(self) -> None:
        """Make the namespace, the nodes and the strangers."""
        await self.client.create(_NAMESPACES, {"metadata": {"name": self.name}}, server_deadline=_DEADLINE)
        await self._nodes()
        # Until the namespace has its service account, the API server refuses every pod in it.
        await self._eventually(self._has_account)
        await self._strangers()

    async def reset(self) -> None:
        """Take away what a run has left, strangers apart."""
        for resource in _KINDS:
            for item in await self._left(resource):
                await self._remove(resource, item.metadata)
        await self._eventually(self._empty)
        if await self._harmed():
            for resource in _KINDS:
                for item in (await self.client.list_page(resource, namespace=self.name, limit=0)).items:
                    await self._remove(resource, item.metadata)
            await self._eventually(self._deserted)
            await self._strangers()
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
        """Whether pods can land on a node."""
        node = await self.client.get(NODES, name)
        return bool(node.status.allocatable) and {taint.key for taint in node.spec.taints} == {FAKE_TAINT.key}

    async def _has_account(self) -> bool:
        try:
            await self.client.get(_ACCOUNTS, "default", namespace=self.name)
        except errors.NotFoundError:
            return False
        return True

    async def _strangers(self) -> None:
        """Put there what looks like ours and is not: a labelled pod of nobody, and another class's VM with its pod."""
        foreign = await self.client.create(
            VIRTUAL_MACHINES,
            _vm(_FOREIGN, labels={names.CONTROLLER_CLASS: "other"}),
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
            # Without its class's label the pod is seen by the controller under test, whose VM it is not.
            {"labels": {names.VM_LABEL: _FOREIGN}, "ownerReferences": [{**reference, "controller": True}]},
            {"labels": {names.VM_LABEL: _FOREIGN}, "ownerReferences": [{**reference, "controller": False}]},
        )
        for name, metadata in zip(_STRANGE_PODS, metadatas, strict=True):
            pod = {
                "metadata": {"name": name, **metadata},
                "spec": {
                    # Nobody touches a gated pod, so that a change can only be the controller's.
                    "schedulingGates": [{"name": "faults.test/never"}],
                    "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10.1"}],
                },
            }
            await self.client.create(PODS, pod, namespace=self.name, server_deadline=_DEADLINE)

    async def _harmed(self) -> bool:
        """Whether a run has done something to the strangers: the next one must not suffer from it."""
        return len(await self._present()) != _STRANGERS

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
        return [item for item in page.items if not stranger(item.metadata)]

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
        async with asyncio.timeout(_PATIENCE):
            while not await holds():  # noqa: ASYNC110 - what the server tells is asked for
                await asyncio.sleep(_POLL)

    # --- what a user does --------------------------------------------------------------------------------

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

    async def migrate(self, vm: str = VM, **metadata: Any) -> None:
        """Ask for a migration, which has the VM's name."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.MIGRATION_KIND,
            "metadata": {"name": vm, **metadata},
            "spec": {"vmName": vm},
        }
        await self.client.create(MIGRATIONS, body, namespace=self.name, server_deadline=_DEADLINE)

    async def evict(self, pod: Pod) -> None:
        """Evict a pod, as kubectl drain does."""
        evictions = Resource("", "v1", f"pods/{pod.metadata.name}/eviction", ObjectOnly)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.metadata.name}}
        await self.client.create(evictions, body, namespace=self.name, server_deadline=_DEADLINE)

    async def fail(self, pod: Pod) -> None:
        """Have a pod fail."""
        await self._patch(pod, {"status": {"phase": "Failed"}}, subresource="status")

    async def delete_pod(self, pod: Pod) -> None:
        """Delete a pod by hand, with no grace."""
        await self.client.delete(PODS, pod.metadata.name, namespace=self.name, uid=pod.metadata.uid, grace_seconds=0)

    async def hold(self, pod: Pod) -> None:
        """Have a pod stay when it is deleted, Terminating, until it is released."""
        await self._patch(pod, {"metadata": {"finalizers": [_HELD]}})

    async def release(self, pod: Pod) -> None:
        """Let a held pod go."""
        await self._patch(pod, {"metadata": {"finalizers": None}})

    async def close(self, node: str) -> None:
        """Cordon a node."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": True}})

    async def open(self, node: str) -> None:
        """Take a node's cordon away, and wait until its taint, which is another's work, has followed."""
        await self.client.merge_patch(NODES, node, {"spec": {"unschedulable": None}})
        await self._eventually(lambda: self._free(node))

    async def delete_node(self, name: str) -> None:
        """Delete a node."""
        node = await self.client.get(NODES, name)
        await self.client.delete(NODES, name, uid=node.metadata.uid)

    async def _patch(self, pod: Pod, body: Mapping[str, Any], *, subresource: str | None = None) -> None:
        await self.client.merge_patch(PODS, pod.metadata.name, body, namespace=self.name, subresource=subresource)


class StuckError(Exception):
    """A scenario waits in vain for what it has to see before it can go on."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a scenario has at hand while it is played: the stage, and what the witness sees there."""

    stage: Stage
    witness: Witness
    patience: float = _PATIENCE
    """Seconds that a step may wait for the one before."""

    def vm(self, name: str = VM) -> VirtualMachine:
        """Return the VM as it was seen last."""
        vm = self.witness.cluster.vm(name)
        if vm is None:
            raise StuckError(f"VM {name} is not there")
        return vm

    def pod(self, name: str = VM) -> Pod:
        """Return the VM's only pod."""
        pods = self.witness.cluster.pods_of(self.vm(name))
        if len(pods) != 1:
            raise StuckError(f"VM {name} has {len(pods)} pods where one was expected")
        return pods[0]

    async def until(self, wanted: Any, what: str) -> None:
        """Wait for something before the next step."""
        if not await self.witness.until(wanted, seconds=self.patience):
            raise StuckError(f"not within {self.patience:.0f} s: {what}")

    async def running(self, *vms: str) -> None:
        """Wait until VMs run and nothing more is to be told of them."""
        await self.until(lambda seen: all(runs(seen, name) for name in vms or (VM,)), "the VM runs")


def stranger(metadata: ObjectMeta) -> bool:
    """Whether an object is one that no controller under test may touch."""
    return metadata.name == _FOREIGN or metadata.name in _STRANGE_PODS


def runs(seen: ClusterState, name: str = VM) -> bool:
    """Whether a VM runs in its only pod, says so, and is free of migrations."""
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
        "spec": {"resources": {"cpu": "0.10", "memory": "0.15"}, "running": running},
    }
