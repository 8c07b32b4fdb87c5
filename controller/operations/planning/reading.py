"""Reads of a cluster what the plan of a drain is made from.

Guarantees: writes nothing. Nodes and VMs have to be readable; of everything else that may not be read the plan says so.
Where the credentials may not list all namespaces, their own is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from controller.domain import ownership
from controller.domain.objects import Strategy, VirtualMachine
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.domain.settings import PublishedSettings
from controller.engine.listing import everything
from controller.kube.errors import ForbiddenError
from controller.kube.kinds import Pod
from controller.kube.resources import NODES, PODS, Resource
from controller.operations import settings
from controller.operations.api import Api
from controller.operations.errors import NoSuchNodeError
from controller.operations.planning import planner
from controller.operations.planning.planner import Known
from controller.operations.planning.values import Plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """The drain to plan. `strategy`: its own, or None for the controllers'; `places`: namespaces to fall back on."""

    nodes: tuple[str, ...]
    places: tuple[str, ...]
    parallel_nodes: int = 1
    strategy: Strategy | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A plan, and the settings that it was made with, by the class of the controller."""

    plan: Plan
    settings: dict[str | None, PublishedSettings]


async def named(client: Api, selector: str) -> tuple[str, ...]:
    """Return the nodes with some labels, by name. Raises NoSuchNodeError if there are none, and KubeErrors."""
    found = sorted(node.metadata.name for node in await everything(client, NODES, label_selector=selector))
    if not found:
        raise NoSuchNodeError(f"no node matches {selector}: see kubectl get nodes --show-labels")
    return tuple(found)


async def plan(client: Api, wish: Wish, now: datetime) -> Outlook:
    """Read a cluster, and plan a drain of it.

    Raises NoSuchNodeError, and KubeErrors where nodes or VMs cannot be read.
    """
    nodes = await everything(client, NODES)
    missing = sorted(set(wish.nodes) - {node.metadata.name for node in nodes})
    if missing:
        raise NoSuchNodeError(f"there is no node {', '.join(missing)}: see kubectl get nodes")
    reader = _Reader(client, wish.places)
    vms = await reader.read("VMs", VIRTUAL_MACHINES, needed=True)
    pods = await reader.read("pods", PODS)
    migrations = await reader.read("migrations", MIGRATIONS)
    rules = await _settings(client, wish, vms, pods, reader.unread)
    known = Known(tuple(nodes), tuple(vms), tuple(pods), tuple(migrations), rules, now, tuple(reader.unread))
    return Outlook(planner.plan(known, wish.nodes, parallel_nodes=wish.parallel_nodes), rules)


async def _settings(
    client: Api, wish: Wish, vms: Iterable[VirtualMachine], pods: Iterable[Pod], unread: list[str]
) -> dict[str | None, PublishedSettings]:
    """Return the settings of the controllers of VMs that leave, by their status or their pod, or are moving."""
    there = {ownership.vm_key(pod) for pod in pods if pod.spec.node_name in wish.nodes}
    concerned = {
        vm.controller_class: None
        for vm in vms
        if vm.status.node_name in wish.nodes or vm.status.migration is not None or vm.metadata.key in there
    }
    readings = await settings.read_classes(client, wish.places, concerned or {None: None})
    for reading in readings.values():
        unread += reading.notes
    strategy = wish.strategy
    return {
        of_class: reading.settings if strategy is None else replace(reading.settings, strategy=strategy)
        for of_class, reading in readings.items()
    }


class _Reader:
    """Lists of all namespaces, or of some; `unread` says what is missing."""

    def __init__(self, client: Api, places: Sequence[str]) -> None:
        self._client = client
        self._places = places
        self.unread: list[str] = []

    async def read(self, what: str, resource: Resource[T], *, needed: bool = False) -> list[T]:
        """Return what may be listed of a resource. Raises ForbiddenError if it is needed, and may not be at all."""
        try:
            return await everything(self._client, resource)
        except ForbiddenError as error:
            found: list[T] = []
            read: list[str] = []
            for namespace in self._places:
                try:
                    found += await everything(self._client, resource, namespace=namespace)
                    read.append(namespace)
                except ForbiddenError:
                    continue
            if needed and not read:
                raise error from None
        where = f"of namespaces other than {', '.join(read)}" if read else "of any namespace"
        self.unread.append(f"{what} {where}: they may not be listed")
        return found
