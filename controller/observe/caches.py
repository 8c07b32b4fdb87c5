"""The caches of a process: its stores, their indexes, and the reflectors that fill them.

Guarantees: a cache contains the objects of one namespace, or of all, that match the process' class and selector; a
lookup by key or by VM is O(1); a cache is empty until its reflector runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias, TypeVar

from controller.domain import names, ownership
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.changes import HasMetadata
from controller.engine.reflector import Metrics, Reflector
from controller.engine.store import Store
from controller.engine.watch import ListWatcher
from controller.kube.kinds import Node, Pod
from controller.kube.resources import NODES, PODS, Resource

T = TypeVar("T", bound=HasMetadata)

Named: TypeAlias = tuple[str, Reflector[Any]]
"""A reflector, with its display name."""


@dataclass(frozen=True, slots=True)
class Caches:
    """The stores of one namespace, or of all. Pods and migrations are indexed by their VM's `namespace/name`."""

    vms: Store[VirtualMachine] = field(default_factory=Store)
    pods: Store[Pod] = field(default_factory=lambda: Store(index=ownership.vm_key))
    migrations: Store[VirtualMachineMigration] = field(
        default_factory=lambda: Store(index=lambda migration: migration.vm_key)
    )


def of(namespaces: Iterable[str]) -> dict[str | None, Caches]:
    """Return empty caches by namespace; without namespaces, one cache of all of them under None."""
    return {namespace: Caches() for namespace in tuple(namespaces) or (None,)}


def reflectors(
    client: ListWatcher,
    caches: Mapping[str | None, Caches],
    nodes: Store[Node],
    *,
    controller_class: str | None,
    selector: str,
    rng: Random,
    metrics: Callable[[str], Metrics],
) -> list[Named]:
    """Return a reflector for every cache, nodes first.

    `controller_class` None is the default class; `selector` is a label selector for VMs of the class, empty selects
    all. `metrics` returns the metrics of a reflector by its name in them.
    """

    def reflector(
        resource: Resource[T],
        store: Store[T],
        namespace: str | None,
        label_selector: str | None = None,
        *,
        optional: bool = False,
    ) -> Reflector[T]:
        name = f"{resource.plural}/{namespace}" if namespace else resource.plural
        return Reflector(
            client,
            resource,
            store,
            rng=rng,
            namespace=namespace,
            label_selector=label_selector,
            optional=optional,
            metrics=metrics(name),
        )

    wanted = controller_class
    of_class = f"!{names.CONTROLLER_CLASS}" if wanted is None else f"{names.CONTROLLER_CLASS}={wanted}"
    vms = ",".join(filter(None, (of_class, selector)))
    pods = f"{names.VM_LABEL},{of_class}"
    # A Role in the chosen namespaces cannot grant access to nodes; then the features that need nodes are disabled.
    found: list[Named] = [("nodes", reflector(NODES, nodes, None, optional=None not in caches))]
    for namespace, cache in caches.items():
        where = f" in {namespace}" if namespace else ""
        found += [
            (f"VMs{where}", reflector(VIRTUAL_MACHINES, cache.vms, namespace, vms)),
            (f"migrations{where}", reflector(MIGRATIONS, cache.migrations, namespace)),
            (f"pods{where}", reflector(PODS, cache.pods, namespace, pods)),
        ]
    return found
