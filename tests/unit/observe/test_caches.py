"""The objects in a process' caches, and their indexes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from controller.domain import names
from controller.domain.objects import MigrationSpec, VirtualMachineMigration
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.engine.reflector import Metrics
from controller.engine.store import Store
from controller.kube import errors
from controller.kube.kinds import Node
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, PODS
from controller.observe import caches
from controller.observe.caches import Caches
from tests.model.server import ApiServer
from tests.unit.domain.builders import pod, running, vm

pytestmark = pytest.mark.looptime

BLUE = {names.CONTROLLER_CLASS: "blue"}
POD_OF_A_VM = {names.VM_LABEL: "some"}


@dataclass(slots=True)
class Seen:
    """The caches of one process, on an API server with objects of two classes in two namespaces."""

    server: ApiServer = field(default_factory=ApiServer)
    nodes: Store[Node] = field(default_factory=Store)
    by_namespace: dict[str | None, Caches] = field(default_factory=dict)
    reporting: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Display names of the reflectors whose first list is unanswered."""

    def __post_init__(self) -> None:
        """Fill the server."""
        self.server.put(NODES.plural, "/node-1")
        for where in ("a", "b"):
            for name, labels in (("plain", {}), ("gold", {"tier": "gold"}), ("blue", BLUE | {"tier": "gold"})):
                self.server.put(VIRTUAL_MACHINES.plural, f"{where}/{name}", metadata={"labels": labels})
            for name, labels in (("ours", POD_OF_A_VM), ("blues", POD_OF_A_VM | BLUE), ("strange", {})):
                self.server.put(PODS.plural, f"{where}/{name}", metadata={"labels": labels})
            self.server.put(MIGRATIONS.plural, f"{where}/move")

    async def look(self, *namespaces: str, controller_class: str | None = None, selector: str = "") -> None:
        """Run the reflectors for a moment."""
        self.by_namespace = caches.of(namespaces)
        found = caches.reflectors(
            self.server,
            self.by_namespace,
            self.nodes,
            controller_class=controller_class,
            selector=selector,
            rng=Random(1),  # noqa: S311 - no secret
            metrics=self._metrics,
        )
        tasks = [asyncio.create_task(reflector.run(), name=name) for name, reflector in found]
        await asyncio.sleep(1)
        self.unanswered = [name for name, reflector in found if not reflector.answered.is_set()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _metrics(self, name: str) -> Metrics:
        self.reporting.append(name)
        return Metrics()


def keys(store: Iterable[Any]) -> list[str]:
    """Return the keys of a store's objects."""
    return sorted(item.metadata.key for item in store)


async def test_the_default_class_selects_objects_without_a_class() -> None:
    """VMs and the pods of VMs; nodes and migrations of every class."""
    seen = Seen()
    await seen.look()
    cache = seen.by_namespace[None]
    assert keys(cache.vms) == ["a/gold", "a/plain", "b/gold", "b/plain"]
    assert keys(cache.pods) == ["a/ours", "b/ours"]
    assert keys(cache.migrations) == ["a/move", "b/move"]
    assert keys(seen.nodes) == ["/node-1"]
    assert seen.reporting == ["nodes", "virtualmachines", "virtualmachinemigrations", "pods"]


async def test_each_namespace_has_its_own_caches_and_all_share_the_nodes() -> None:
    """Objects in other namespaces are in none."""
    seen = Seen()
    await seen.look("b", "c")
    assert {where: keys(cache.vms) for where, cache in seen.by_namespace.items()} == {
        "b": ["b/gold", "b/plain"],
        "c": [],
    }
    assert keys(seen.nodes) == ["/node-1"]
    assert seen.reporting == [
        "nodes",
        *(f"{plural}/b" for plural in ("virtualmachines", "virtualmachinemigrations", "pods")),
        *(f"{plural}/c" for plural in ("virtualmachines", "virtualmachinemigrations", "pods")),
    ]


async def test_a_selector_applies_to_vms_and_not_to_pods() -> None:
    """The pod of a VM that no longer matches still belongs to the VM."""
    seen = Seen()
    await seen.look("a", controller_class="blue", selector="tier=gold")
    assert keys(seen.by_namespace["a"].vms) == ["a/blue"]
    assert keys(seen.by_namespace["a"].pods) == ["a/blues"]


@pytest.mark.parametrize(("namespaces", "waiting"), [(("a",), []), ((), ["nodes"])])
async def test_nodes_are_optional_only_with_chosen_namespaces(namespaces: tuple[str, ...], waiting: list[str]) -> None:
    """A Role cannot grant access to nodes."""
    seen = Seen()
    seen.server.failures["list nodes"] = errors.from_status(403, "Forbidden", "not yours")
    await seen.look(*namespaces)
    assert seen.unanswered == waiting


def test_pods_and_migrations_are_indexed_by_their_vm() -> None:
    """Whatever their own names."""
    cache = Caches()
    cache.pods.replace([running(vm(name="a", uid="a")), pod(vm(name="b", uid="b"))], "1")
    move = VirtualMachineMigration(ObjectMeta(name="m", namespace="default"), MigrationSpec(vm_name="a"))
    cache.migrations.replace([move], "1")
    assert [found.metadata.owner_references[0].name for found in cache.pods.by_index("default/a")] == ["a"]
    assert [found.metadata.name for found in cache.migrations.by_index("default/a")] == ["m"]
