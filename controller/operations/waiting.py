"""Waiting for a VM to reach a phase, or for its pod to be deleted.

Guarantees: waits watch and never poll; every wait has a timeout; a busy controller is distinct from one that does not
run: as long as it writes the status of any VM of the namespace, it is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VMStatus
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.status import listed, ready
from controller.engine.store import Store
from controller.kube.kinds import Pod
from controller.kube.meta import Condition, ObjectMeta
from controller.kube.resources import PODS
from controller.operations import vms
from controller.operations.api import Api
from controller.operations.errors import (
    NoControllerError,
    NoSuchVMError,
    TimedOutError,
    UnschedulableError,
)
from controller.operations.text import one_line
from controller.operations.watching import ChangeSignal, watching

UNNOTICED: Final = 10.0
"""Seconds without a status write after which we report that no controller runs."""
_UNTOUCHED: Final = VMStatus()


class Attention:
    """Measures the time since the controller last wrote the status of any VM in a store."""

    def __init__(self, store: Store[VirtualMachine], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard = clock()
        store.listen(self._change, name="Attention")

    def _change(self, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        if new is not None and new.status != (old.status if old is not None else _UNTOUCHED):
            self._heard = self._clock()

    @property
    def left(self) -> float:
        """Seconds until `UNNOTICED` is reached without a status write; 0 once it is."""
        return max(0.0, self._heard + UNNOTICED - self._clock())


class Silence:
    """Measures the time since the number of silent objects last changed, against a limit in seconds."""

    def __init__(self, now: float, limit: float) -> None:
        self._since = now
        self._limit = limit
        self._silent = -1

    def lasts(self, silent: int, now: float) -> bool:
        """Take the number of objects that are silent at `now`; return whether it has not changed for the limit."""
        if silent != self._silent:
            self._silent, self._since = silent, now
        return now - self._since >= self._limit


def untouched(vm: VirtualMachine) -> bool:
    """Whether no controller has ever written this VM's status: the first write sets conditions."""
    return not vm.status.conditions


def no_controller(what: str, namespace: str) -> NoControllerError:
    """Return the error for a VM that no controller acts on; `what` describes it."""
    return NoControllerError(
        f"{what}, and no controller has written a status for {UNNOTICED:g} s: "
        f"start `vmsim controller`, and check that it watches namespace {namespace}"
    )


async def for_phase(
    client: Api,
    namespace: str,
    name: str,
    phase: str,
    *,
    timeout: float,  # noqa: ASYNC109 - the way out differs from a cancellation's
) -> VirtualMachine:
    """Wait until a VM is in a phase, or has passed through it since the call; return the VM.

    Raises NoSuchVMError, also when the VM is deleted meanwhile; NoControllerError when no controller acts on it
    for 10 s; UnschedulableError or TimedOutError after `timeout` seconds.
    """
    before = (await vms.get(client, namespace, name)).status.conditions

    def there(vm: VirtualMachine) -> bool:
        return vm.status.phase == phase or _passed(vm, phase, before)

    return await until(client, namespace, name, there, wanted=phase, timeout=timeout)


def _passed(vm: VirtualMachine, phase: str, before: tuple[Condition, ...]) -> bool:
    """Whether the history has a new entry for a phase: one status write may add several phases."""
    return any(entry.type == f"Phase{phase}" and entry not in before for entry in vm.status.conditions)


async def until(
    client: Api,
    namespace: str,
    name: str,
    accept: Callable[[VirtualMachine], bool],
    *,
    wanted: str,
    timeout: float,  # noqa: ASYNC109 - as above
) -> VirtualMachine:
    """Wait until `accept` returns true for a VM that exists; return the VM. Errors call that state `wanted`.

    Raises the errors of `for_phase`.
    """
    clock = asyncio.get_running_loop().time
    ends = clock() + timeout
    signal = ChangeSignal()
    async with watching(client, VIRTUAL_MACHINES, signal.touch, namespace=namespace) as store:
        attention = Attention(store, clock)
        while True:
            vm = store.get(f"{namespace}/{name}")
            if vm is None:
                raise NoSuchVMError(f"VM {name} was deleted before it was {wanted}")
            if accept(vm):
                return vm
            if untouched(vm) and attention.left <= 0:
                raise no_controller(f"VM {name} is {vm.status.phase}, not {wanted}", namespace)
            if clock() >= ends:
                raise late(vm, wanted, timeout)
            await signal.change(min(attention.left or timeout, ends - clock()))


async def until_no_pod(
    client: Api,
    vm: VirtualMachine,
    *,
    timeout: float,  # noqa: ASYNC109 - as above
) -> None:
    """Wait until a deleted VM has no pod any more. Raises TimedOutError after `timeout` seconds."""
    clock = asyncio.get_running_loop().time
    ends = clock() + timeout
    signal = ChangeSignal()
    namespace, selector = vm.metadata.namespace, f"{names.VM_LABEL}={vm.metadata.name}"
    async with watching(client, PODS, signal.touch, namespace=namespace, label_selector=selector) as pods:
        while left := [pod for pod in pods if ownership.belongs_to(pod, vm)]:
            if clock() >= ends:
                why = termination(left[0])
                raise TimedOutError(
                    f"VM {vm.metadata.name} is deleted, but after {timeout:g} s its pod {left[0].metadata.name} is not"
                    + (f": {why}" if why is not None else "")
                )
            await signal.change(ends - clock())


def late(vm: VirtualMachine, wanted: str, timeout: float) -> TimedOutError:
    """Return the error for a VM that did not reach `wanted` within `timeout` seconds, with its phase and the reason."""
    condition = ready(vm)
    kind = UnschedulableError if condition is not None and condition.reason == "Unschedulable" else TimedOutError
    return kind(f"after {timeout:g} s VM {vm.metadata.name} is {explained(vm)}, not {wanted}")


def explained(vm: VirtualMachine) -> str:
    """Return a VM's phase and, if known, why it is not ready."""
    if untouched(vm):
        return f"{vm.status.phase} (no controller has taken it up; does `vmsim controller` run?)"
    condition = ready(vm)
    if condition is None or condition.status == "True":
        return vm.status.phase
    return f"{vm.status.phase} ({one_line(': '.join(filter(None, (condition.reason, condition.message))))})"


def termination(pod: Pod) -> str | None:
    """Return since when a pod is terminating, and its finalizers; None if it is not terminating."""
    if not pod.terminating:
        return None
    since = pod.metadata.deletion_timestamp
    return f"pod {pod.metadata.name} has been terminating since {since}{held_by(pod.metadata)}"


def held_by(metadata: ObjectMeta) -> str:
    """Return the finalizers of an object as text to append to its name; empty if it has none."""
    return f", held by {listed('finalizer', metadata.finalizers)}" if metadata.finalizers else ""
