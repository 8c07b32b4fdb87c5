"""The assembled process on the model of the API server: the stages of its parts, and leader election."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from controller import app
from controller.domain.migration.limits import Limits
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.election import Elector
from controller.engine.lifecycle import ControllerDiedError, Part, When
from controller.engine.store import Store
from controller.kube.kinds import Node
from controller.kube.resources import EVENTS, LEASES, PODS
from controller.kube.times import micro_timestamp
from controller.manager import Options
from controller.observe import caches as observed
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import POLICY

pytestmark = pytest.mark.looptime

SETTINGS = app.Settings(
    kubeconfig=None,
    namespaces=(),
    controller_class=None,
    selector="",
    bind_address="",
    certificate=None,
    metrics_auth=False,
    vm_metrics=True,
    leader_election=False,
    home=None,
    controllers=Options(policy=POLICY, limits=Limits(), workers=2, events=True),
)


def now() -> datetime:
    """Return the time of the loop's clock."""
    return datetime(2026, 1, 15, 10, 0, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


class World:
    """A process on a cluster with a node and a VM. With `elects` it uses leader election."""

    def __init__(self, *, elects: bool, parts: tuple[Part, ...] = ()) -> None:
        self.cluster = Cluster()
        self.cluster.add_node()
        self.cluster.apply_vm()
        self.rng = Random(1)  # noqa: S311 - jitter, no secret
        self.elector = self._elector() if elects else None
        self.caches = observed.of(())
        self.nodes: Store[Node] = Store()
        self.registry = CollectorRegistry()
        self.stop = asyncio.Event()
        self.process = app.assemble(
            SETTINGS,
            self.cluster,
            self.elector,
            self.caches,
            self.nodes,
            home="default",
            parts=parts,
            rng=self.rng,
            registry=self.registry,
        )

    def _elector(self) -> Elector:
        return Elector(
            self.cluster,
            namespace="default",
            name="vmsim-controller",
            identity="me",
            clock=asyncio.get_running_loop().time,
            rng=self.rng,
            now=now,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the process; assert that no task of it is left."""
        before = asyncio.all_tasks()
        task = asyncio.create_task(self.process.lifecycle.run(self.stop, grace=app.GRACE))
        async with asyncio.timeout(7200):  # of virtual time
            yield task
        self.stop.set()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == before

    def let_lead(self, holder: str) -> None:
        """Give the lease to another process, renewed now."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": micro_timestamp(now())}
        if LEASES.plural in {plural for plural, _ in self.cluster.objects}:
            self.cluster.put(LEASES.plural, "default/vmsim-controller", spec=spec)
        else:
            self.cluster.add(
                LEASES.plural, {"metadata": {"name": "vmsim-controller", "namespace": "default"}, "spec": spec}
            )

    def leads(self) -> float | None:
        """Return the value of the leadership gauge."""
        return self.registry.get_sample_value("leader_election_master_status", {"name": "vmsim-controller"})

    def acted(self) -> list[str]:
        """Return the writes of the controllers."""
        return [write for write in self.cluster.writes if LEASES.plural not in write]

    def listeners(self) -> set[str]:
        """Return the names of the stores' listeners."""
        stores: list[Store[Any]] = [self.nodes]
        for cache in self.caches.values():
            stores += [cache.vms, cache.pods, cache.migrations]
        return {heard.name for store in stores for heard in store.subscriptions}


async def test_without_leader_election_the_process_acts_once_its_caches_are_synced() -> None:
    """And logs it."""
    world = World(elects=False)
    assert world.leads() == 0
    with capture_logs() as logs:
        async with world.running():
            await asyncio.sleep(1)
            assert world.leads() == 1
            assert f"create {PODS.plural}" in world.acted()
            assert f"create {EVENTS.plural}" in world.acted()
    assert [line["event"] for line in logs if line["log_level"] == "info"] == [
        "caches filled",
        "published the settings",
        "stopping",
    ]


async def test_a_standby_has_synced_caches_and_queues_no_key() -> None:
    """Nothing listens to its caches for controllers, and it writes nothing."""
    world = World(elects=True)
    world.let_lead("another")
    async with world.running():
        for _ in range(20):
            await asyncio.sleep(5)
            world.let_lead("another")
        world.cluster.apply_vm("vm-2")
        await asyncio.sleep(1)
        assert [len(cache.vms) for cache in world.caches.values()] == [2]
        assert world.leads() == 0
        assert world.cluster.writes == []
        assert {name: len(queue) for name, queue in world.process.queues.items()} == {
            "virtualmachine": 0,
            "virtualmachinemigration": 0,
        }
        assert world.listeners() == set()


async def test_a_new_leader_reconciles_every_object_in_its_caches() -> None:
    """Once the lease has expired."""
    world = World(elects=True)
    world.let_lead("another")
    async with world.running():
        await asyncio.sleep(14)
        assert not world.acted()
        await asyncio.sleep(6)
        assert world.leads() == 1
        assert f"create {PODS.plural}" in world.acted()
        assert {"VMReconciler", "VMKeys", "MigrationSlots", "MigrationKeys"} <= world.listeners()


async def test_a_leader_that_loses_its_lease_ends() -> None:
    """With that error only."""
    world = World(elects=True)
    async with world.running() as task:
        await asyncio.sleep(1)
        assert world.leads() == 1
        world.let_lead("another")
        with capture_logs() as logs, pytest.raises(ControllerDiedError, match="was taken by another"):
            await task
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_process_whose_election_fails_does_not_lead() -> None:
    """It ends with the error."""
    world = World(elects=True)
    world.cluster.failures[f"get {LEASES.plural}"] = ZeroDivisionError("of all things")
    async with world.running() as task:
        with pytest.raises(ControllerDiedError, match="leader election has ended: ZeroDivisionError: of all things"):
            await task
    assert world.leads() == 0
    assert world.acted() == []


async def test_the_lease_is_renewed_while_keys_in_process_are_finished() -> None:
    """Their writes need it; the process ends with the last key, before the deadline."""
    world = World(elects=True)
    hung = asyncio.Event()

    async def slow(request: str) -> None:
        if request == f"create {PODS.plural}":
            hung.set()
            await asyncio.sleep(app.GRACE - 1)

    world.cluster.turn = slow
    async with world.running() as task:
        await hung.wait()
        renewed = world.cluster.writes.count(f"patch {LEASES.plural}")
        world.stop.set()
        began = asyncio.get_running_loop().time()
        await task
        assert asyncio.get_running_loop().time() - began == pytest.approx(app.GRACE - 1, abs=0.1)
    assert world.cluster.writes.count(f"patch {LEASES.plural}") > renewed
    assert f"create {PODS.plural}" in world.acted()


async def test_a_key_in_process_is_abandoned_at_the_deadline() -> None:
    """A process may die between any two writes."""
    world = World(elects=False)
    hung = asyncio.Event()

    async def never(request: str) -> None:
        if request == f"create {PODS.plural}":
            hung.set()
            await asyncio.Event().wait()

    world.cluster.turn = never
    async with world.running() as task:
        await hung.wait()
        world.stop.set()
        began = asyncio.get_running_loop().time()
        await task
        assert asyncio.get_running_loop().time() - began == pytest.approx(app.GRACE, abs=0.1)
    assert f"create {PODS.plural}" not in world.acted()


async def test_a_stop_before_the_caches_are_synced_is_a_clean_stop() -> None:
    """Even while the API server does not answer."""
    world = World(elects=True)

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    world.cluster.turn = never
    async with world.running() as task:
        await asyncio.sleep(3600)
        world.stop.set()
        await task
        assert not world.process.lifecycle.has_reached(When.SYNCED)


async def test_a_failed_part_ends_the_process() -> None:
    """Also one that does not need the API server."""

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    world = World(elects=False, parts=(Part("certificates", fails),))
    async with world.running() as task:
        with pytest.raises(ControllerDiedError, match="task certificates has ended: ZeroDivisionError"):
            await task
        assert world.process.lifecycle.ended() == ("certificates",)


async def test_a_vm_created_while_the_process_leads_is_reconciled() -> None:
    """By its watch event; no list is needed."""
    world = World(elects=True)
    async with world.running():
        await asyncio.sleep(10)
        world.cluster.apply_vm("vm-2")
        await asyncio.sleep(1)
        assert len(world.cluster.of(PODS)) == len(world.cluster.of(VIRTUAL_MACHINES)) == 2
