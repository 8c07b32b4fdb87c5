"""Launcher pods without a VirtualMachine (bare pods): the caller creates, moves and deletes them; no controller does.

Guarantees: a bare pod has the name, labels, annotations, requests and security context of a launcher pod, without the
owner reference, the incarnation and the created-by label; a pod that a VM owns is never touched; deletes carry the
pod's UID; the target of a move is created only after the source no longer exists. Two concurrent creates for one name
are not serialized: use a VirtualMachine for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from controller.domain import names
from controller.domain.objects import VirtualMachine, VMResources, VMSpec
from controller.domain.vm import launcher, status
from controller.domain.vm.placement import ANYWHERE, Placement
from controller.domain.vm.policy import LauncherPolicy
from controller.engine.listing import everything
from controller.engine.store import Store
from controller.kube.errors import ConflictError, NotFoundError
from controller.kube.kinds import Pod
from controller.kube.meta import ObjectMeta
from controller.kube.resources import PODS
from controller.kube.verbs import CREATE_DEADLINE
from controller.operations.api import Api
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


@dataclass(frozen=True, slots=True)
class Move:
    """A finished move; `downtime` is in seconds, from the delete of the source until the target runs."""

    source: Pod
    target: Pod
    downtime: float


def manifest(
    request: VMRequest, run_id: str, policy: LauncherPolicy, placement: Placement = ANYWHERE
) -> dict[str, Any]:
    """Return the body of the pod to create. Its name depends on the VM's name and `run_id`, a random string."""
    vm = VirtualMachine(
        metadata=ObjectMeta(
            name=request.name,
            namespace=request.namespace,
            uid=run_id,
            annotations=launcher.consumption_annotations(request.cpu_consumption, request.memory_consumption),
        ),
        spec=VMSpec(resources=VMResources(cpu=request.cpu, memory=request.memory)),
    )
    spec = launcher.requested(vm)
    body = launcher.manifest(vm, 0, spec, launcher.consumption(vm, spec).shares, policy, where=placement)
    metadata = body["metadata"]
    del metadata["ownerReferences"], metadata["annotations"][names.INCARNATION]
    del metadata["labels"][names.KUBEVIRT_CREATED_BY]
    return body


async def create(client: Api, request: VMRequest, policy: LauncherPolicy, *, run_id: str) -> Pod:
    """Create the pod of a VM that has none. Raises VMExistsError, or the KubeError of a refusal."""
    there = await find(client, request.namespace, request.name)
    if there:
        raise VMExistsError(f"{request.name} has a pod already, {there[0].metadata.name}: delete it first")
    return await _create(client, request, manifest(request, run_id, policy))


async def _create(client: Api, request: VMRequest, body: Mapping[str, Any]) -> Pod:
    return await client.create(PODS, body, namespace=request.namespace, server_deadline=CREATE_DEADLINE)


async def find(client: Api, namespace: str, name: str) -> list[Pod]:
    """Return the bare pods of a name that have not ended, by a live list."""
    return _live(await everything(client, PODS, namespace=namespace, label_selector=_selector(name)))


async def delete(
    client: Api,
    namespace: str,
    name: str,
    *,
    timeout: float,  # noqa: ASYNC109 - the way out differs from a cancellation's
) -> None:
    """Delete the bare pod of a name and wait until it no longer exists. Raises NoSuchVMError, TimedOutError."""
    async with watching(
        client, PODS, (signal := ChangeSignal()).touch, namespace=namespace, label_selector=_selector(name)
    ) as pods:
        found = _one(pods, namespace, name)
        await _delete(client, found)
        await _until(
            pods,
            signal,
            lambda: _deleted(pods, found),
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
    """Wait until the bare pod of a name is running or unschedulable; return it. Raises NoSuchVMError, TimedOutError."""
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
    policy: LauncherPolicy,
    *,
    run_id: str,
    to: str | None,
    timeout: float,  # noqa: ASYNC109 - as above
) -> Move:
    """Delete the bare pod of a name, create another on node `to` (None: any other node), and wait until it runs.

    Raises NoSuchVMError; MigrationFailedError when the source does not run or the target is lost; UnschedulableError
    or TimedOutError after `timeout` seconds. Nothing is rolled back: a target that was created stays, and runs once a
    node has capacity.
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
        await _until(pods, signal, lambda: _deleted(pods, source), doing=doing, seconds=timeout)
        avoid = None if to == node else node
        made = await _create(client, request, manifest(request, run_id, policy, Placement(node=to, avoid=avoid)))

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
        return  # it no longer exists, which is the goal


async def _until(
    pods: Store[Pod], signal: ChangeSignal, look: Callable[[], T | None], *, doing: str, seconds: float
) -> T:
    """Call `look` at every change until it returns a value. Raises its errors; a TimedOutError quotes `doing`."""
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
    """Return the pods that have no owner and have not ended."""
    return [pod for pod in pods if not pod.metadata.owner_references and not pod.done]


def _one(pods: Iterable[Pod], namespace: str, name: str) -> Pod:
    found = _live(pods)
    if not found:
        raise NoSuchVMError(f"{name} has no pod of its own in namespace {namespace}: create one first")
    return found[0]


def _deleted(pods: Store[Pod], pod: Pod) -> bool | None:
    shown = pods.get(pod.metadata.key)
    return None if shown is not None and shown.metadata.uid == pod.metadata.uid else True


def _unschedulable(pod: Pod) -> str | None:
    """Return the scheduler's message if a pod is unschedulable; None if it is not."""
    why = status.unschedulable(pod)
    return one_line(why) if why is not None else None
