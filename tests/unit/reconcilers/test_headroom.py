"""The readings of what pods hold on nodes: how old an answer may be, and who shares one."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
from structlog.testing import capture_logs

from controller.domain import names
from controller.domain.capacity import NOTHING, Amount
from controller.domain.objects import Claim, VirtualMachine, VirtualMachineMigration, VMStatus
from controller.domain.resources import MIGRATIONS
from controller.engine.changes import Change
from controller.kube.kinds import Pod, PodSpec
from controller.kube.meta import ObjectMeta, OwnerReference
from controller.kube.resources import PODS
from controller.observe.caches import Caches
from controller.observe.holdings import READ_PERIOD
from controller.reconcilers.migration.headroom import Headroom
from tests.model.cluster import Cluster
from tests.unit.clock import Clock

ROOM = Amount(Decimal(4), Decimal(2**30), 1)
VM = VirtualMachine(
    ObjectMeta(name="vm-1", namespace="default", uid="uid-1"), status=VMStatus(node_name="s", incarnation=0)
)
CLAIMED = msgspec.structs.replace(
    VM, status=VMStatus(incarnation=0, migration=Claim(name="m", uid="m", source_node="s", reserved_node="n"))
)


def launcher_pod(name: str, node: str | None, life: int = 0) -> Pod:
    """A pod of the VM."""
    owner = OwnerReference(names.API_VERSION, names.VM_KIND, "vm-1", "uid-1", controller=True)
    metadata = ObjectMeta(
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        resource_version="1",
        annotations={names.INCARNATION: str(life)},
        owner_references=(owner,),
    )
    return Pod(metadata, PodSpec(node_name=node))


class Stand:
    """A room over a cluster, and migrations that the cache comes to know."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.caches = Caches()
        self.clock = Clock()
        self.freed: list[float] = []
        self.room = Headroom(self.cluster, (None,), self.clock, freed=lambda: self.freed.append(self.clock.now))
        self.room.listen({None: self.caches})
        self.later = 0.0

    def migration(self, name: str) -> VirtualMachineMigration:
        """Ask for a migration; the cache shows it at once."""
        item = msgspec.convert(self.cluster.migrate(name), VirtualMachineMigration)
        self.caches.migrations.apply(Change.of(item))
        return item

    def occupy(self, name: str, cpu: str = "0") -> None:
        """Let a stranger's pod take a place on the node."""
        pod = {
            "metadata": {"name": name, "namespace": "other"},
            "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": "Running"},
        }
        self.cluster.add(PODS.plural, pod)

    async def pods(self, item: VirtualMachineMigration) -> int:
        """Ask how many pods the node holds."""
        self.later = await self.room.refresh(item)
        return self.room.used("n").pods


async def test_migrations_that_are_there_share_one_reading() -> None:
    """However many ask, and whether at once or one after the other."""
    stand = Stand()
    first, second, third = (stand.migration(f"m-{n}") for n in range(3))
    stand.clock.now = 1.0
    await asyncio.gather(stand.pods(first), stand.pods(second))
    stand.clock.now += READ_PERIOD - 0.1
    await stand.pods(third)

    assert stand.cluster.requests == ["list pods"]


async def test_what_was_done_before_a_migration_was_asked_for_counts() -> None:
    """Although the last reading is young."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    stand.occupy("stranger")
    stand.clock.now += 0.1

    assert await stand.pods(stand.migration("m-2")) == 1


async def test_no_answer_is_older_than_five_seconds() -> None:
    """Who waits for room asks again."""
    stand = Stand()
    waiting = stand.migration("m-1")
    await stand.pods(waiting)
    stand.occupy("stranger")
    stand.clock.now += READ_PERIOD + 0.1

    assert await stand.pods(waiting) == 1


async def test_a_pod_whose_requests_cannot_be_read_is_logged_once() -> None:
    """Its node's room is unknown, reading after reading."""
    stand = Stand()
    waiting = stand.migration("m-1")
    stand.occupy("odd", cpu="many")
    with capture_logs() as logs:
        for _ in range(3):
            await stand.pods(waiting)
            assert stand.room.used("n").unknown
            stand.clock.now += READ_PERIOD + 0.1

    assert [(line["pod"], "'many' is no quantity" in line["error"]) for line in logs] == [("other/odd", True)]


async def test_many_pods_are_not_listed_again_for_each_new_migration() -> None:
    """It waits until they may be."""
    stand = Stand()
    reading = ["list pods"] * 2  # a page is 500
    for number in range(1000):
        stand.occupy(f"stranger-{number}")
    await stand.pods(stand.migration("m-1"))
    stand.clock.now = 0.25
    late = stand.migration("m-2")
    await stand.pods(late)
    assert (stand.later, stand.cluster.requests) == (0.25, reading)
    stand.clock.now += stand.later
    await stand.pods(late)
    assert (stand.later, stand.cluster.requests) == (0.0, reading * 2)


async def test_between_two_readings_the_pods_that_the_cache_shows_count_as_they_are() -> None:
    """One that comes, one that gets its node, and one that goes."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    pending = launcher_pod("a", None)
    stand.caches.pods.apply(Change.of(pending))
    assert stand.room.used("n").pods == 0
    bound = launcher_pod("a", "n")
    stand.caches.pods.apply(Change.of(bound))
    assert stand.room.used("n").pods == 1
    stand.caches.pods.apply(Change.of(bound, deleted=True))
    assert stand.room.used("n").pods == 0


async def test_what_changes_while_pods_are_listed_counts() -> None:
    """The list may show it as it was before."""
    stand = Stand()
    item = stand.migration("m-1")

    async def gone_meanwhile(_: str) -> None:
        stand.caches.pods.apply(Change.of(launcher_pod("a", "n"), deleted=True))

    stand.cluster.objects[PODS.plural, "default/a"] = msgspec.to_builtins(launcher_pod("a", "n"))
    stand.caches.pods.apply(Change.of(launcher_pod("a", "n")))
    stand.cluster.turn = gone_meanwhile
    assert await stand.pods(item) == 0


# --- reservations ------------------------------------------------------------------------------------------------


def test_a_reservation_counts_until_the_target_has_a_node() -> None:
    """The pod of the life before is none."""
    stand = Stand()
    stand.room.reserve(VM, "n", ROOM)
    stand.caches.pods.apply(Change.of(launcher_pod("a", "n", life=0)))
    assert stand.room.used("n") == ROOM
    stand.caches.pods.apply(Change.of(launcher_pod("b", "n", life=1)))
    assert stand.room.used("n") == NOTHING, "nobody has read what pods hold"
    assert stand.freed == []


def test_a_reservation_moves_to_where_the_pod_is() -> None:
    """The scheduler chose another node, and the room that was held is free."""
    stand = Stand()
    stand.room.reserve(VM, "n", ROOM)
    stand.caches.pods.apply(Change.of(launcher_pod("b", "elsewhere", life=1)))
    assert stand.room.used("n") == NOTHING
    assert stand.freed == [0.0]


def test_a_claim_that_was_there_before_holds_what_it_says() -> None:
    """A new leader knows what was promised; what a pod has taken is not held again."""
    stand = Stand()
    stand.room.take_in(CLAIMED, (launcher_pod("a", "n", life=0),), ROOM)
    assert stand.room.used("n") == ROOM
    stand.room.release("uid-1")
    assert stand.room.used("n") == NOTHING
    stand.room.take_in(CLAIMED, (launcher_pod("b", "n", life=1),), ROOM)
    assert stand.room.used("n") == NOTHING


async def test_a_migration_made_anew_under_its_name_needs_a_reading_of_its_own() -> None:
    """One list shows the old one gone and the new one there; nothing of the old one is remembered."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    stand.clock.now += 1
    stand.occupy("stranger")
    stand.cluster.remove(MIGRATIONS, "default/m-1")
    anew = msgspec.convert(stand.cluster.migrate("m-1"), VirtualMachineMigration)
    stand.caches.migrations.replace([anew], str(stand.cluster.revision))

    assert await stand.pods(anew) == 1
    stand.caches.migrations.replace([], str(stand.cluster.revision + 1))
    assert stand.room._known_since == {}
