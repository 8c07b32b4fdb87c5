"""Launcher pods without a VM: made, moved and deleted by whoever calls, since no controller knows them.

Guarantees: such a pod looks like a launcher (name, labels, annotations, requests, security) but for what would claim
that a VM owns it; a pod that a VM owns is never touched; deletes carry the pod's UID; a second pod is made only once
the first is gone. Two callers that create the same one at once are not kept apart: that is what VMs are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMResources, VMSpec
from controller.domain.vm import launcher, status
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.errors import ConflictError, NotFoundError
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from controller.operations.api import SERVER_DEADLINE, Api
from controller.operations.errors import (
    MigrationFailedError,
    NoSuchVMError,
    TimedOutError,
    UnschedulableError,
    VMExistsError,
)
from controller.operations.text import one_line
from controller.operations.vms import VMRequest
from controller.operations.watching import ChangeSignal, watching

T = TypeVar("T")

POLICY: Final = launcher.LauncherPolicy()
"""As the controller's by default."""


@dataclass(frozen=True, slots=True)
class Move:
    """A pod that was replaced by another; `downtime` is in seconds, from the order to delete it until the other ran."""

    source: Pod
    target: Pod
    downtime: float


def manifest(request: VMRequest, life: str, placement: launcher.Placement = launcher.ANYWHERE) -> dict[str, Any]:
    """Return the pod to create; its name is a function of the VM's name and of `life`, which is drawn by the caller."""
    vm = VirtualMachine(
        metadata=ObjectMeta(
            name=request.name,
            namespace=request.namespace,
            uid=life,
            annotations=launcher.consumption_annotations(request.cpu_consumption, request.memory_consumption),
        ),
        spec=VMSpec(resources=VMResources(cpu=request.cpu, memory=request.memory)),
    )
    spec = launcher.requested(vm)
    body = launcher.manifest(vm, 0, spec, launcher.consumption(vm, spec).shares, POLICY, placement=placement)
    metadata = body["metadata"]
    del metadata["ownerReferences"], metadata["annotations"][names.INCARNATION]
    del metadata["labels"][names.KUBEVIRT_CREATED_BY]
    return body


async def create(client: Api, request: VMRequest, *, life: str) -> Pod:
    """Create the pod of a VM that has none. Raises VMExistsError, or the KubeError of whoever refuses."""
    there = await find(client, request.namespace, request.name)
    if there:
        raise VMExistsError(f"{request.name} has a pod already, {there[0].metadata.name}: delete it first")
    return await _create(client, request, life, launcher.ANYWHERE)


async def _create(client: Api, request: VMRequest, life: str, placement: launcher.Placement) -> Pod:
    body = manifest(request, life, placement)
    return await client.create(PODS, body, namespace=request.namespace, server_deadline=SERVER_DEADLINE)


async def find(client: Api, namespace: str, name: str) -> list[Pod]:
    """Return the live bare pods of a name."""
    return _live(await everything(client, PODS, namespace=namespace, label_selector=_selector(name)))


async def delete(
    client: Api,
    namespace: str,
    name: str,
    *,
    timeout: float,  # noqa: ASYNC109 - the way out differs from a cancellation's
) -> None:
    """Delete the pod of a name, and wait until it is gone. Raises NoSuchVMError, TimedOutError."""
    async with watching(
        client, PODS, (signal := ChangeSignal()).touch, namespace=namespace, label_selector=_selector(name)
    ) as pods:
        found = _one(pods, namespace, name)
        await _delete(client, found)
        await _until(
            pods,
            signal,
            lambda: _gone(pods, found),
            doing=f"{found.metadata.name} is still being deleted",
            seconds=timeout,
        )


async def place(
    client: Api,
    namespace: str,
    name: str,
    *,
    timeout: float,  # noqa: ASYNC109 - as above
) -> Pod:
    """Wait until the pod of a name runs, or finds no node; return it. Raises NoSuchVMError, TimedOutError."""
    async with watching(
        client, PODS, (signal := ChangeSignal()).touch, namespace=namespace, label_selector=_selector(name)
    ) as pods:

        def there() -> Pod | None:
            pod = _one(pods, namespace, name)
            return pod if pod.status.phase == "Running" or _unschedulable(pod) is not None else None

        return await _until(pods, signal, there, doing=f"the pod of {name} does not run yet", seconds=timeout)


async def migrate(
    client: Api,
    request: VMRequest,
    *,
    life: str,
    to: str | None,
    timeout: float,  # noqa: ASYNC109 - as above
) -> Move:
    """Delete the pod of a name, make another that avoids its node (or takes the one named), wait until that runs.

    Raises NoSuchVMError, MigrationFailedError when it does not run on any node, UnschedulableError or TimedOutError
    after `timeout` seconds. Nothing is rolled back: a pod that was made stays, and runs when there is room.
    """
    clock = asyncio.get_running_loop().time
    selector = _selector(request.name)
    async with watching(
        client, PODS, (signal := ChangeSignal()).touch, namespace=request.namespace, label_selector=selector
    ) as pods:
        source = _one(pods, request.namespace, request.name)
        if source.status.phase != "Running" or source.spec.node_name is None:
            raise MigrationFailedError(
                f"pod {source.metadata.name} is {source.status.phase}, and only a running one moves",
                reason="VMNotRunning",
            )
        node = source.spec.node_name
        began = clock()
        await _delete(client, source)
        doing = f"{source.metadata.name} is still being deleted"
        await _until(pods, signal, lambda: _gone(pods, source), doing=doing, seconds=timeout)
        avoid = None if to == node else node
        made = await _create(client, request, life, launcher.Placement(node=to, avoid=avoid))

        def runs() -> Pod | None:
            pod = pods.get(made.metadata.key)
            if pod is None and not pods.has_reached(made.metadata.resource_version):
                return None
            if pod is None or pod.done:
                raise MigrationFailedError(f"target pod {made.metadata.name} was lost", reason="TargetLost")
            return pod if pod.status.phase == "Running" else None

        left = max(0.0, timeout - (clock() - began))
        target = await _until(pods, signal, runs, doing=f"{made.metadata.name} does not run yet", seconds=left)
        return Move(source, target, clock() - began)


async def _delete(client: Api, pod: Pod) -> None:
    metadata = pod.metadata
    try:
        await client.delete(PODS, metadata.name, namespace=metadata.namespace, uid=metadata.uid)
    except (NotFoundError, ConflictError):
        return  # gone already, which is what was wanted


async def _until(
    pods: Store[Pod], signal: ChangeSignal, look: Callable[[], T | None], *, doing: str, seconds: float
) -> T:
    """Look at every change until there is something to return. Raises as `look`; TimedOutError says `doing`."""
    clock = asyncio.get_running_loop().time
    ends = clock() + seconds
    while (found := look()) is None:
        if clock() >= ends:
            late = f"after {seconds:.3g} s {doing}"
            why = next((why for pod in _live(pods) if (why := _unschedulable(pod)) is not None), None)
            raise UnschedulableError(f"{late}: {why}") if why is not None else TimedOutError(late)
        await signal.change(ends - clock())
    return found


def _selector(name: str) -> str:
    return f"{names.VM_LABEL}={name}"


def _live(pods: Iterable[Pod]) -> list[Pod]:
    """Return the pods that nobody owns and that have not ended."""
    return [pod for pod in pods if not pod.metadata.owner_references and not pod.done]


def _one(pods: Iterable[Pod], namespace: str, name: str) -> Pod:
    found = _live(pods)
    if not found:
        raise NoSuchVMError(f"{name} has no pod of its own in namespace {namespace}: create one first")
    return found[0]


def _gone(pods: Store[Pod], pod: Pod) -> bool | None:
    shown = pods.get(pod.metadata.key)
    return None if shown is not None and shown.metadata.uid == pod.metadata.uid else True


def _unschedulable(pod: Pod) -> str | None:
    """Return the scheduler's reason to give a pod no node."""
    why = status.unschedulable(pod)
    return one_line(why) if why is not None else None
