"""What a pod asks of its node: CPU and memory, counted as the scheduler counts them.

Guarantees: the same sums as `PodRequests` of k8s.io/component-helpers with in-place resizing on: containers; init
containers and sidecars in their order; requests of the pod as a whole; overhead; and while a resize goes on, the
largest of what is wanted, admitted and given. A pod with an unreadable quantity raises `QuantityError`: it is never
taken for one that asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from controller.kube.kinds import Container, ContainerResources, Pod, PodSpec, Requests
from controller.kube.quantity import parse_quantity

_ZERO: Final = Decimal(0)
_UNASKED: Final = Requests()
_UNSET: Final = ContainerResources()


class Asked(NamedTuple):
    """CPU in cores, memory in bytes."""

    cpu: Decimal
    memory: Decimal

    def plus(self, other: Asked) -> Asked:
        """Return the sum."""
        return Asked(self.cpu + other.cpu, self.memory + other.memory)

    def at_least(self, other: Asked) -> Asked:
        """Return the larger of each."""
        return Asked(max(self.cpu, other.cpu), max(self.memory, other.memory))


_NOTHING: Final = Asked(_ZERO, _ZERO)


def of_pod(pod: Pod) -> Asked:
    """Return what a pod asks of its node. Raises QuantityError."""
    spec = pod.spec
    infeasible = _resize_is_infeasible(pod)
    if infeasible or _says_more_than_the_spec(pod):
        asked = _while_resizing(pod, infeasible=infeasible)
    else:
        asked = _sum(spec, _wanted)
    if spec.resources != _UNSET:
        asked = _as_a_whole(pod, asked, infeasible=infeasible)
    return asked if spec.overhead == _UNASKED else asked.plus(_read(spec.overhead))


def same(old: Pod, new: Pod) -> bool:
    """Whether two states of a pod ask for the same for sure, told without reading a quantity."""
    before, after = old.status, new.status
    return (
        old.spec == new.spec
        and before.container_statuses == after.container_statuses
        and before.init_container_statuses == after.init_container_statuses
        and before.resources == after.resources
        and before.allocated_resources == after.allocated_resources
        and _resize_is_infeasible(old) == _resize_is_infeasible(new)
    )


def _sum(spec: PodSpec, of: Callable[[Container], Requests]) -> Asked:
    """Add up containers; each init container runs beside the sidecars that were started before it."""
    total = _NOTHING
    for container in spec.containers:
        own = _read(of(container))
        total = own if total is _NOTHING else total.plus(own)
    if not spec.init_containers:
        return total
    sidecars = peak = _NOTHING
    for container in spec.init_containers:
        own = _read(of(container))
        if container.restart_policy == "Always":
            total, sidecars = total.plus(own), sidecars.plus(own)
            peak = peak.at_least(sidecars)
        else:
            peak = peak.at_least(sidecars.plus(own))
    return total.at_least(peak)


def _while_resizing(pod: Pod, *, infeasible: bool) -> Asked:
    """Return the largest of what is wanted, admitted and given. A wish that the node can never grant does not count."""
    status = pod.status
    reported = {item.name: item for item in (*status.init_container_statuses, *status.container_statuses)}

    def fallback(container: Container) -> Requests:
        return _UNASKED if infeasible else _wanted(container)

    def admitted(container: Container) -> Requests:
        item = reported.get(container.name)
        if item is None or item.allocated_resources is None:
            return fallback(container)
        return item.allocated_resources

    def given(container: Container) -> Requests:
        item = reported.get(container.name)
        if item is None or item.resources is None or item.resources.requests is None:
            return admitted(container)
        return item.resources.requests

    whole = status.resources
    if status.allocated_resources is not None and whole is not None and whole.requests is not None:
        largest = _read(status.allocated_resources).at_least(_read(whole.requests))
    else:
        largest = _sum(pod.spec, admitted).at_least(_sum(pod.spec, given))
    return largest if infeasible else largest.at_least(_sum(pod.spec, _wanted))


def _as_a_whole(pod: Pod, asked: Asked, *, infeasible: bool) -> Asked:
    """Return what the pod asks for as a whole, where it does so; else what its containers add up to."""
    wanted = pod.spec.resources.requests
    if wanted.cpu is None and wanted.memory is None:
        return asked
    lists = [wanted]
    status = pod.status
    if status.resources is not None:
        reported = (status.resources.requests, status.allocated_resources)
        lists = [*([] if infeasible else lists), *(item for item in reported if item is not None)]
    return Asked(
        max((parse_quantity(item.cpu) for item in lists if item.cpu is not None), default=asked.cpu),
        max((parse_quantity(item.memory) for item in lists if item.memory is not None), default=asked.memory),
    )


def _wanted(container: Container) -> Requests:
    return container.resources.requests


def _read(requests: Requests) -> Asked:
    cpu, memory = requests.cpu, requests.memory
    return Asked(
        _ZERO if cpu is None else parse_quantity(cpu),
        _ZERO if memory is None else parse_quantity(memory),
    )


def _says_more_than_the_spec(pod: Pod) -> bool:
    """Whether a node has said what it admitted or gave."""
    status = pod.status
    if status.allocated_resources is not None:
        return True
    for statuses in (status.container_statuses, status.init_container_statuses):
        for item in statuses:
            if item.resources is not None or item.allocated_resources is not None:
                return True
    return False


def _resize_is_infeasible(pod: Pod) -> bool:
    for condition in pod.status.conditions:
        if condition.type == "PodResizePending":
            return condition.reason == "Infeasible"
    return False
