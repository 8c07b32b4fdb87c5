"""A pod's requests: CPU and memory, counted as the scheduler counts them.

Guarantees: the same sums as `PodRequests` of k8s.io/component-helpers with in-place resizing on: containers; init
containers and sidecars in their order; requests at pod level; overhead; and during a resize, the largest of desired,
allocated and actual requests. A pod with a malformed quantity raises `QuantityError`: it never counts as one that
requests nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from controller.kube.kinds import Container, ContainerResources, Pod, PodSpec, Requests
from controller.kube.quantity import parse_quantity

_ZERO: Final = Decimal(0)
_NO_REQUESTS: Final = Requests()
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
    """Return what a pod requests of its node. Raises QuantityError."""
    spec = pod.spec
    infeasible = _resize_is_infeasible(pod)
    if infeasible or _reports_resources(pod):
        total = _during_resize(pod, infeasible=infeasible)
    else:
        total = _sum(spec, _desired)
    if spec.resources != _UNSET:
        total = _at_pod_level(pod, total, infeasible=infeasible)
    return total if spec.overhead == _NO_REQUESTS else total.plus(_read(spec.overhead))


def same(old: Pod, new: Pod) -> bool:
    """Whether two states of a pod have equal requests for sure, decided without parsing a quantity."""
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


def _during_resize(pod: Pod, *, infeasible: bool) -> Asked:
    """Return the largest of desired, allocated and actual requests. Desired ones that are infeasible do not count."""
    status = pod.status
    reported = {item.name: item for item in (*status.init_container_statuses, *status.container_statuses)}

    def fallback(container: Container) -> Requests:
        return _NO_REQUESTS if infeasible else _desired(container)

    def allocated(container: Container) -> Requests:
        item = reported.get(container.name)
        if item is None or item.allocated_resources is None:
            return fallback(container)
        return item.allocated_resources

    def actual(container: Container) -> Requests:
        item = reported.get(container.name)
        if item is None or item.resources is None or item.resources.requests is None:
            return allocated(container)
        return item.resources.requests

    whole = status.resources
    if status.allocated_resources is not None and whole is not None and whole.requests is not None:
        largest = _read(status.allocated_resources).at_least(_read(whole.requests))
    else:
        largest = _sum(pod.spec, allocated).at_least(_sum(pod.spec, actual))
    return largest if infeasible else largest.at_least(_sum(pod.spec, _desired))


def _at_pod_level(pod: Pod, total: Asked, *, infeasible: bool) -> Asked:
    """Return the requests at pod level, where the pod has them, else `total`, the sum of its containers."""
    desired = pod.spec.resources.requests
    if desired.cpu is None and desired.memory is None:
        return total
    lists = [desired]
    status = pod.status
    if status.resources is not None:
        reported = (status.resources.requests, status.allocated_resources)
        lists = [*([] if infeasible else lists), *(item for item in reported if item is not None)]
    return Asked(
        max((parse_quantity(item.cpu) for item in lists if item.cpu is not None), default=total.cpu),
        max((parse_quantity(item.memory) for item in lists if item.memory is not None), default=total.memory),
    )


def _desired(container: Container) -> Requests:
    return container.resources.requests


def _read(requests: Requests) -> Asked:
    cpu, memory = requests.cpu, requests.memory
    return Asked(
        _ZERO if cpu is None else parse_quantity(cpu),
        _ZERO if memory is None else parse_quantity(memory),
    )


def _reports_resources(pod: Pod) -> bool:
    """Whether the kubelet has reported allocated or actual resources."""
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
