"""Free capacity of nodes: how old the list of pods may be, and reservations."""

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

AMOUNT = Amount(Decimal(4), Decimal(2**30), 1)
VM = VirtualMachine(
    ObjectMeta(name="vm-1", namespace="default", uid="uid-1"), status=VMStatus(node_name="s", incarnation=0)
)
CLAIMED = msgspec.structs.replace(
    VM, status=VMStatus(incarnation=0, migration=Claim(name="m", uid="m", source_node="s", reserved_node="n"))
)


def launcher_pod(name: str, node: str | None, incarnation: int = 0) -> Pod:
    """A pod of the VM."""
    owner = OwnerReference(names.API_VERSION, names.VM_KIND, "vm-1", "uid-1", controller=True)
    metadata = ObjectMeta(
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        resource_version="1",
        annotations={names.INCARNATION: str(incarnation)},
        owner_references=(owner,),
    )
    return Pod(metadata, PodSpec(node_name=node))


class Stand:
    """A headroom over a cluster, and migrations that the cache shows."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.caches = Caches()
        self.clock = Clock()
        self.freed: list[float] = []
        self.headroom = Headroom(self.cluster, (None,), self.clock, freed=lambda: self.freed.append(self.clock.now))
        self.headroom.listen({None: self.caches})
        self.later = 0.0

    def migration(self, name: str) -> VirtualMachineMigration:
        """Create a migration; the cache shows it at once."""
        item = msgspec.convert(self.cluster.migrate(name), VirtualMachineMigration)
        self.caches.migrations.apply(Change.of(item))
        return item

    def occupy(self, name: str, cpu: str = "0", priority: int = 0) -> None:
        """Put a foreign pod on the node."""
        pod = {
            "metadata": {"name": name, "namespace": "other"},
            "spec": {
                "nodeName": "n",
                "priority": priority,
                "containers": [{"resources": {"requests": {"cpu": cpu}}}],
            },
            "status": {"phase": "Running"},
        }
        self.cluster.add(PODS.plural, pod)

    async def pods(self, item: VirtualMachineMigration) -> int:
        """Return how many pods count on the node."""
        self.later = await self.headroom.refresh(item)
        return self.headroom.used("n").pods


async def test_pending_migrations_share_one_list_of_pods() -> None:
    """Whether they ask concurrently or in turn."""
    stand = Stand()
    first, second, third = (stand.migration(f"m-{n}") for n in range(3))
    stand.clock.now = 1.0
    await asyncio.gather(stand.pods(first), stand.pods(second))
    stand.clock.now += READ_PERIOD - 0.1
    await stand.pods(third)

    assert stand.cluster.requests == ["list pods"]


async def test_a_list_is_never_older_than_the_migration_that_asks() -> None:
    """Although the last one is recent."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    stand.occupy("foreign")
    stand.clock.now += 0.1

    assert await stand.pods(stand.migration("m-2")) == 1


async def test_a_list_is_at_most_five_seconds_old() -> None:
    """A migration that waits for capacity asks again."""
    stand = Stand()
    waiting = stand.migration("m-1")
    await stand.pods(waiting)
    stand.occupy("foreign")
    stand.clock.now += READ_PERIOD + 0.1

    assert await stand.pods(waiting) == 1


async def test_a_pod_with_malformed_requests_is_logged_once() -> None:
    """Its node's free capacity stays unknown."""
    stand = Stand()
    waiting = stand.migration("m-1")
    stand.occupy("malformed", cpu="many")
    with capture_logs() as logs:
        for _ in range(3):
            await stand.pods(waiting)
            assert stand.headroom.used("n").unknown
            stand.clock.now += READ_PERIOD + 0.1

    assert [(line["pod"], "'many' is no quantity" in line["error"]) for line in logs] == [("other/malformed", True)]


async def test_listing_many_pods_again_has_to_wait() -> None:
    """The next migration asks again after that time."""
    stand = Stand()
    listed = ["list pods"] * 2  # a page is 500
    for number in range(1000):
        stand.occupy(f"foreign-{number}")
    await stand.pods(stand.migration("m-1"))
    stand.clock.now = 0.25
    late = stand.migration("m-2")
    await stand.pods(late)
    assert (stand.later, stand.cluster.requests) == (0.25, listed)
    stand.clock.now += stand.later
    await stand.pods(late)
    assert (stand.later, stand.cluster.requests) == (0.0, listed * 2)


async def test_between_two_lists_cached_pods_count_as_they_are() -> None:
    """One is added, gets its node, and is deleted."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    pending = launcher_pod("a", None)
    stand.caches.pods.apply(Change.of(pending))
    assert stand.headroom.used("n").pods == 0
    bound = launcher_pod("a", "n")
    stand.caches.pods.apply(Change.of(bound))
    assert stand.headroom.used("n").pods == 1
    stand.caches.pods.apply(Change.of(bound, deleted=True))
    assert stand.headroom.used("n").pods == 0


async def test_a_change_while_pods_are_listed_counts() -> None:
    """The list may be older."""
    stand = Stand()
    item = stand.migration("m-1")

    async def deleted_meanwhile(_: str) -> None:
        stand.caches.pods.apply(Change.of(launcher_pod("a", "n"), deleted=True))

    stand.cluster.objects[PODS.plural, "default/a"] = msgspec.to_builtins(launcher_pod("a", "n"))
    stand.caches.pods.apply(Change.of(launcher_pod("a", "n")))
    stand.cluster.turn = deleted_meanwhile
    assert await stand.pods(item) == 0


async def test_pods_count_at_their_priority_and_reservations_at_none() -> None:
    """A reservation is a promise: no other migration may count on its capacity."""
    stand = Stand()
    stand.occupy("low", cpu="2", priority=-10)
    await stand.pods(stand.migration("m-1"))
    stand.headroom.reserve(VM, "n", AMOUNT)
    low = Amount(Decimal(2), Decimal(0), 1)
    assert list(stand.headroom.below("n", 10)) == [(-10, low)]
    assert stand.headroom.used("n") == low + AMOUNT


# --- reservations ------------------------------------------------------------------------------------------------


def test_a_reservation_counts_until_the_target_has_a_node() -> None:
    """A pod of the previous incarnation does not end it."""
    stand = Stand()
    stand.headroom.reserve(VM, "n", AMOUNT)
    stand.caches.pods.apply(Change.of(launcher_pod("a", "n", incarnation=0)))
    assert stand.headroom.used("n") == AMOUNT
    stand.caches.pods.apply(Change.of(launcher_pod("b", "n", incarnation=1)))
    assert stand.headroom.used("n") == NOTHING, "the pods were not listed"
    assert stand.freed == []


def test_a_reservation_ends_when_the_scheduler_chooses_another_node() -> None:
    """Its capacity is free again."""
    stand = Stand()
    stand.headroom.reserve(VM, "n", AMOUNT)
    stand.caches.pods.apply(Change.of(launcher_pod("b", "elsewhere", incarnation=1)))
    assert stand.headroom.used("n") == NOTHING
    assert stand.freed == [0.0]


def test_the_reservation_of_an_existing_claim_is_restored() -> None:
    """By a new leader; not if the target pod has a node."""
    stand = Stand()
    stand.headroom.take_in(CLAIMED, (launcher_pod("a", "n", incarnation=0),), AMOUNT)
    assert stand.headroom.used("n") == AMOUNT
    stand.headroom.release("uid-1")
    assert stand.headroom.used("n") == NOTHING
    stand.headroom.take_in(CLAIMED, (launcher_pod("b", "n", incarnation=1),), AMOUNT)
    assert stand.headroom.used("n") == NOTHING


async def test_a_recreated_migration_needs_a_list_of_its_own() -> None:
    """One change replaces the old migration; none of its state remains."""
    stand = Stand()
    await stand.pods(stand.migration("m-1"))
    stand.clock.now += 1
    stand.occupy("foreign")
    stand.cluster.remove(MIGRATIONS, "default/m-1")
    recreated = msgspec.convert(stand.cluster.migrate("m-1"), VirtualMachineMigration)
    stand.caches.migrations.replace([recreated], str(stand.cluster.revision))

    assert await stand.pods(recreated) == 1
    stand.caches.migrations.replace([], str(stand.cluster.revision + 1))
    assert stand.headroom._known_since == {}
