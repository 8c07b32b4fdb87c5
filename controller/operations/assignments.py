"""Waiting until VMs are settled: the status of each agrees with its pod, and neither will change by itself.

Guarantees: a VM is settled only if its status agrees with its pod; a status that stays wrong while the controller
writes nothing is an error, not a time-out. Nothing is written: the controller derives the status from the pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm import boot
from controller.domain.vm.status import Phase, pod_phase, unschedulable
from controller.engine.store import Store
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.operations.api import Api
from controller.operations.errors import TimedOutError, no_such_vm
from controller.operations.waiting import Attention, explained, no_controller, untouched
from controller.operations.watching import ChangeSignal, watching


async def settled(
    client: Api,
    namespace: str,
    wanted: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - the way out differs from a cancellation's
) -> dict[str, VirtualMachine]:
    """Wait until each of these VMs is running, failed, stopped or unschedulable, and its status says so.

    Raises NoSuchVMError, also for a VM that is deleted meanwhile; NoControllerError when a status is wrong and the
    controller has written none for 10 s; TimedOutError after `timeout` seconds.
    """
    clock = asyncio.get_running_loop().time
    ends = clock() + timeout
    signal = ChangeSignal()
    async with AsyncExitStack() as stack:
        vms = await stack.enter_async_context(watching(client, VIRTUAL_MACHINES, signal.touch, namespace=namespace))
        pods = await stack.enter_async_context(
            watching(client, PODS, signal.touch, namespace=namespace, label_selector=names.VM_LABEL)
        )
        attention = Attention(vms, clock)
        while True:
            found = {name: _vm(vms, namespace, name) for name in wanted}
            current = _current(pods)
            pairs = [(vm, current.get(vm.metadata.uid)) for vm in found.values()]
            waiting = [why for vm, pod in pairs if (why := hindrance(vm, pod)) is not None]
            if not waiting:
                return found
            wrong = [vm for vm, pod in pairs if disagrees(vm, pod)]
            if wrong and attention.left <= 0:
                raise no_controller(hindrance(wrong[0], current.get(wrong[0].metadata.uid)) or "", namespace)
            if clock() >= ends:
                raise TimedOutError(f"after {timeout:g} s: {'; '.join(waiting)}")
            await signal.change(min(attention.left or timeout, ends - clock()))


def _vm(store: Store[VirtualMachine], namespace: str, name: str) -> VirtualMachine:
    vm = store.get(f"{namespace}/{name}")
    if vm is None:
        raise no_such_vm(name, namespace)
    return vm


def _current(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Return the pod of each VM's newest incarnation, by the VM's UID."""
    latest: dict[str, Pod] = {}
    for pod in pods:
        uid = ownership.vm_uid(pod)
        if uid is not None:
            rival = latest.get(uid)
            if rival is None or (ownership.incarnation(pod) or 0) > (ownership.incarnation(rival) or 0):
                latest[uid] = pod
    return latest


def disagrees(vm: VirtualMachine, pod: Pod | None) -> bool:
    """Whether a VM's status differs from its pod; a terminating pod never differs."""
    status = vm.status
    if untouched(vm):
        return True
    if pod is None:
        wanted = vm.spec.running and vm.metadata.deletion_timestamp is None
        possible = (Phase.PENDING, Phase.FAILED, *(() if wanted else (Phase.STOPPED,)))
        return status.phase not in possible
    phases = [str(pod_phase(pod))]
    if boot.ends(pod) is not None and Phase.RUNNING in phases:
        phases.append(Phase.SCHEDULED)  # whether its guest has booted is judged by the controller's clock
    where = (status.pod_name, status.node_name) == (pod.metadata.name, pod.spec.node_name)
    return not pod.terminating and not (where and status.phase in phases)


def hindrance(vm: VirtualMachine, pod: Pod | None) -> str | None:
    """Return one line: why a VM is not settled; None if it is."""
    name, status = vm.metadata.name, vm.status
    if untouched(vm):
        return f"VM {name} is {status.phase}, and its status was never written"
    if disagrees(vm, pod):
        said = f"VM {name} says {status.phase}{_where(status.pod_name, status.node_name)}"
        if pod is None:
            return f"{said}, but has no pod"
        return f"{said}, but its pod says {pod_phase(pod)}{_where(pod.metadata.name, pod.spec.node_name)}"
    if pod is None:
        return None if status.phase in (Phase.FAILED, Phase.STOPPED) else f"VM {name} is {explained(vm)}"
    if pod.terminating:
        return f"VM {name}: pod {pod.metadata.name} is being deleted"
    unplaced = unschedulable(pod) is not None
    return None if unplaced or status.phase in (Phase.RUNNING, Phase.FAILED) else f"VM {name} is {explained(vm)}"


def _where(pod: str | None, node: str | None) -> str:
    return f" ({pod or 'no pod'} on {node or 'no node'})"
