"""The readings of what pods hold on nodes: how old an answer may be, and who shares one."""

from __future__ import annotations

import asyncio

import msgspec
from structlog.testing import capture_logs

from controller.domain.objects import VirtualMachineMigration
from controller.kube.resources import PODS
from controller.reconcilers.room import ROOM_AGE, Room
from controller.reconcilers.sources import Caches
from tests.unit.clock import Clock
from tests.unit.reconcilers.cluster import Cluster


class Stand:
    """A room over a cluster, and migrations that the cache comes to know."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.caches = Caches()
        self.clock = Clock()
        self.room = Room(self.cluster, {None: self.caches}, self.clock)

    def migration(self, name: str) -> VirtualMachineMigration:
        """Ask for a migration; the cache shows it at once."""
        item = msgspec.convert(self.cluster.migrate(name), VirtualMachineMigration)
        self.caches.migrations.apply(item, deleted=False)
        return item

    def occupy(self, name: str, cpu: str = "0") -> None:
        """Let a stranger's pod take a place on the node."""
        pod = {
            "metadata": {"name": name, "namespace": "other"},
            "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": "Running"},
        }
        self.cluster._add(PODS.plural, pod)

    async def pods(self, item: VirtualMachineMigration) -> int:
        """Ask how many pods the node holds."""
        used = await self.room.used_for(item)
        return used["n"].pods if used else 0


async def test_migrations_that_are_there_share_one_reading() -> None:
    """However many ask, and whether at once or one after the other."""
    stand = Stand()
    first, second, third = (stand.migration(f"m-{n}") for n in range(3))
    stand.clock.now = 1.0
    await asyncio.gather(stand.pods(first), stand.pods(second))
    stand.clock.now += ROOM_AGE
    await stand.pods(third)

    assert stand.cluster.requests == ["list pods"]


async def test_what_was_done_before_a_migration_was_asked_for_counts() -> None:
    """Although the last reading is young."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    stand.occupy("stranger")
    stand.clock.now += 0.1

    assert await stand.pods(stand.migration("m-2")) == 1


async def test_no_answer_is_older_than_two_seconds() -> None:
    """Who waits for room asks again."""
    stand = Stand()
    waiting = stand.migration("m-1")
    await stand.pods(waiting)
    stand.occupy("stranger")
    stand.clock.now += ROOM_AGE + 0.1

    assert await stand.pods(waiting) == 1


async def test_a_pod_whose_requests_cannot_be_read_is_logged_once() -> None:
    """Its node's room is unknown, reading after reading."""
    stand = Stand()
    waiting = stand.migration("m-1")
    stand.occupy("odd", cpu="many")
    with capture_logs() as logs:
        for _ in range(3):
            assert (await stand.room.used_for(waiting))["n"].unknown
            stand.clock.now += ROOM_AGE + 0.1

    assert [(line["pod"], "'many' is no quantity" in line["error"]) for line in logs] == [("other/odd", True)]
