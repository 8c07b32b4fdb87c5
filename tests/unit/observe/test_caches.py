"""Which objects a process asks for, and how its caches find them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from random import Random
from typing import Any

import pytest

from controller.domain.objects import MigrationSpec, VirtualMachineMigration
from controller.engine.reflector import NoMetrics
from controller.engine.store import Store
from controller.kube import codec, errors
from controller.kube.kinds import Node
from controller.kube.meta import ObjectMeta
from controller.kube.resources import NODES, Resource
from controller.kube.verbs import Page
from controller.observe import caches
from controller.observe.caches import Caches
from tests.unit.domain.builders import pod, running, vm

pytestmark = pytest.mark.looptime


class Server:
    """An API server with nothing in it, that remembers what it was asked for."""

    def __init__(self, *, forbids_nodes: bool = False) -> None:
        self.asked: dict[tuple[str, str | None], str | None] = {}
        self._forbids_nodes = forbids_nodes

    async def list_page(
        self, resource: Resource[Any], *, namespace: str | None = None, label_selector: str | None = None, **_: Any
    ) -> Page[Any]:
        """Answer with nothing."""
        self.asked[resource.plural, namespace] = label_selector
        if resource is NODES and self._forbids_nodes:
            raise errors.from_status(403, "Forbidden", "not yours")
        return Page([], "1", "")

    async def watch(self, *_: Any, **__: Any) -> AsyncGenerator[list[codec.WatchEnvelope], None]:
        """Have no news."""
        yield []
        await asyncio.Event().wait()


async def waiting(
    server: Server, *namespaces: str, controller_class: str | None = None, selector: str = ""
) -> list[str]:
    """Run all reflectors for a moment; return the names of those that have no answer then."""
    reporting: list[str] = []

    def metrics(name: str) -> NoMetrics:
        reporting.append(name)
        return NoMetrics()

    found = caches.reflectors(
        server,
        caches.of(namespaces),
        Store[Node](),
        controller_class=controller_class,
        selector=selector,
        rng=Random(1),  # noqa: S311 - no secret
        metrics=metrics,
    )
    tasks = [asyncio.create_task(reflector.run(), name=name) for name, reflector in found]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert reporting == [f"{plural}/{where}" if where else plural for plural, where in server.asked]
    return [name for name, reflector in found if not reflector.answered.is_set()]


async def test_all_namespaces_are_one_cache_of_each_kind() -> None:
    """VMs and pods of the default class are those that name none."""
    server = Server()
    assert await waiting(server) == []
    assert server.asked == {
        ("nodes", None): None,
        ("virtualmachines", None): "!simulation.node-classifier.io/controller-class",
        ("virtualmachinemigrations", None): None,
        ("pods", None): "simulation.node-classifier.io/vm,!simulation.node-classifier.io/controller-class",
    }


async def test_each_namespace_has_caches_of_its_own_and_nodes_are_everybodys() -> None:
    """In the order of the namespaces."""
    server = Server()
    await waiting(server, "b", "a")
    assert [where for plural, where in server.asked if plural == "pods"] == ["b", "a"]
    assert len(server.asked) == 7


async def test_a_class_and_a_selector_choose_vms_and_only_the_class_chooses_pods() -> None:
    """A pod of a VM that left the selection is still its VM's."""
    server = Server()
    await waiting(server, controller_class="blue", selector="tier=gold")
    assert server.asked["virtualmachines", None] == "simulation.node-classifier.io/controller-class=blue,tier=gold"
    assert server.asked["pods", None] == (
        "simulation.node-classifier.io/vm,simulation.node-classifier.io/controller-class=blue"
    )


async def test_nodes_are_done_without_only_where_namespaces_were_chosen() -> None:
    """Rights in some namespaces may be all there are."""
    assert await waiting(Server(forbids_nodes=True), "a") == []
    assert await waiting(Server(forbids_nodes=True)) == ["nodes"]


def test_pods_and_migrations_are_found_by_their_vm() -> None:
    """Whatever their names."""
    cache = Caches()
    machine = vm(name="a", uid="a")
    cache.pods.replace([running(machine), pod(vm(name="b", uid="b"))], "1")
    move = VirtualMachineMigration(ObjectMeta(name="m", namespace="default"), MigrationSpec(vm_name="a"))
    cache.migrations.replace([move], "1")
    assert [found.metadata.owner_references[0].name for found in cache.pods.by_index("default/a")] == ["a"]
    assert [found.metadata.name for found in cache.migrations.by_index("default/a")] == ["m"]
