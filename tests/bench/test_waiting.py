"""Pending migrations: their number costs neither lists of pods nor work in a reconcile.

Counted on the model of the API server, with a fleet that is written into it directly, so that only the migrations'
reconciler works: 1,000 running VMs, fifty on each of 20 nodes, no two on a node of one size, so that no two migrations
are equal; and a free node. All keys are reconciled every second, more often than in production.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import pytest

from controller.domain.migration.limits import Limits
from controller.engine.listing import PAGE_SIZE
from controller.kube import errors
from controller.kube.resources import PODS
from controller.observe.holdings import READ_PERIOD
from controller.reconcilers.migration.dry_run import ASK_AGAIN
from tests.bench import counting
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process

pytestmark = pytest.mark.timeout(60)  # it takes seconds, and the machine may be busy

NODES: Final = 20
A_NODE: Final = 50
VMS: Final = NODES * A_NODE
FOREIGN: Final = 10_000 - VMS
"""Foreign pods, on nodes without VMs."""
FEW: Final = 50
TOLERANCE: Final = 1.02
"""The allowed ratio of a reconcile's calls among many pending migrations to those among few. Observed is no difference,
of about 120 calls; one more call for each pending migration would be 950 more."""


def pod(name: str, node: str, cpu: str = "0.1") -> Document:
    """Return a running foreign pod."""
    container = {"resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "other"},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running"},
    }


def fleet(*, full: bool, foreign: int = 0) -> Cluster:
    """Return the fleet; if `full`, no node has capacity for one more VM."""
    cluster = Cluster()
    sources = [f"source-{number}" for number in range(NODES)]
    for node in (*sources, "free"):
        cluster.add_node(node)
        if full:
            cluster.add(PODS.plural, pod(f"filler-{node}", node, cpu="32"))
    for number in range(VMS):
        counting.run(cluster, f"vm-{number}", sources[number // A_NODE], cpu=f"{0.01 + number % A_NODE / 1000:.3f}")
    for number in range(foreign):
        cluster.add(PODS.plural, pod(f"foreign-{number}", f"elsewhere-{number % NODES}"))
    cluster.pass_time(3600)
    return cluster


def create_migrations(cluster: Cluster, vms: Iterable[int]) -> None:
    """Create migrations of these VMs."""
    for number in vms:
        cluster.migrate(f"m-{number}", vm=f"vm-{number}")


async def reconcile(process: Process, times: int) -> None:
    """Reconcile every migration that is queued or pending, once a second."""
    for _ in range(times):
        process.deliver()
        for key in list(process.moving):
            await process.work("migrations", key)
        process.cluster.pass_time(1)
    process.deliver()


def reasons(cluster: Cluster, vms: Iterable[int]) -> set[tuple[str, str]]:
    """Return the phases of migrations and the reasons for which they wait."""
    statuses = [cluster.migration(f"m-{number}") for number in vms]
    return {(status["phase"], status["conditions"][0]["reason"]) for status in statuses if status.get("conditions")}


async def test_no_pods_are_listed_while_no_slot_is_free() -> None:
    """Neither for pending migrations nor for new ones."""
    cluster = fleet(full=False, foreign=FOREIGN)
    process = Process(cluster, limits=Limits())
    create_migrations(cluster, range(VMS - FEW))
    await reconcile(process, 2)
    assert cluster.requests.count("patch virtualmachines") == 5, "as many as the limit allows at once"
    cluster.requests.clear()
    create_migrations(cluster, range(VMS - FEW, VMS))
    await reconcile(process, 10)

    assert cluster.requests.count("list pods") == 0
    assert reasons(cluster, range(5, VMS)) == {("Pending", "WaitingForTurn")}


async def test_pods_are_listed_at_most_once_in_five_seconds_for_any_number_of_new_migrations() -> None:
    """Without limits and without capacity; each new migration needs a list that is newer than itself."""
    cluster = fleet(full=True, foreign=FOREIGN)
    process = Process(cluster, limits=Limits(0, 0))
    listed: list[float] = []

    async def note(request: str) -> None:
        if request == "list pods":
            listed.append(cluster.now.timestamp())

    cluster.turn = note
    for second in range(8):
        create_migrations(cluster, range(second, VMS, 8))
        await reconcile(process, 1)
    await reconcile(process, 3)

    pages = -(-len(cluster.pods()) // PAGE_SIZE)
    assert len(listed) == 3 * pages
    assert [later - earlier for earlier, later in pairwise(listed[::pages])] == [READ_PERIOD] * 2
    assert reasons(cluster, range(VMS)) == {("Pending", "NoRoom")}


async def cost(pending: int, limits: Limits, *, full: bool) -> int:
    """Return the most calls of a reconcile of a migration among so many pending ones."""
    cluster = fleet(full=full)
    process = Process(cluster, limits=limits)
    vms = range(0, VMS, VMS // pending)
    create_migrations(cluster, vms)
    await reconcile(process, 2)
    costs = []
    for number in vms[5 :: len(vms) // FEW]:  # the first five may have started
        with counting.counted() as calls:
            await process.migrations.reconcile(f"default/vm-{number}")
        costs.append(calls.count)
    assert {phase for phase, _ in reasons(cluster, vms[5:])} == {"Pending"}
    return max(costs)


@pytest.mark.parametrize(
    ("limits", "full"),
    [(Limits(), False), (Limits(), True), (Limits(0, 0), True)],
    ids=["slot", "headroom", "no limits"],
)
async def test_a_reconcile_costs_the_same_among_a_thousand_pending_migrations_as_among_fifty(
    limits: Limits, *, full: bool
) -> None:
    """Whether they wait for a slot or for capacity."""
    few, many = await cost(FEW, limits, full=full), await cost(VMS, limits, full=full)

    assert many <= few * TOLERANCE, f"{many} calls among {VMS}, {few} among {FEW}"


async def cost_of_a_refusal(pending: int) -> int:
    """Return the calls of a reconcile that finds capacity, but whose target a quota refuses, while others find none."""
    cluster = fleet(full=True)
    counting.run(cluster, "small", "source-0", cpu="0.001")
    cluster.add_node("nook")
    cluster.add(PODS.plural, pod("filler-nook", "nook", cpu="31.9"))
    exceeded = "exceeded quota: q, requested: pods=1, used: pods=9, limited: pods=1"
    refusal = Fault("dry-run", PODS.plural, errors.ForbiddenError(403, "Forbidden", exceeded), commit=False)
    cluster.intercept = lambda method, _: refusal if method == "dry-run" else None
    process = Process(cluster, limits=Limits(0, 0))
    vms = range(0, VMS, VMS // pending)
    create_migrations(cluster, vms)
    cluster.migrate("m-small", vm="small")
    await reconcile(process, 2)
    cluster.pass_time(ASK_AGAIN)
    cluster.requests.clear()
    with counting.counted() as calls:
        await process.migrations.reconcile("default/small")
    assert cluster.requests.count("dry-run pods") == 1
    assert cluster.migration("m-small")["conditions"][0]["reason"] == "QuotaExceeded"
    assert reasons(cluster, vms) == {("Pending", "NoRoom")}
    return calls.count


async def test_a_refused_target_costs_the_same_among_a_thousand_without_capacity_as_among_fifty() -> None:
    """The capacity that it releases was free before, when they found it too small."""
    few, many = await cost_of_a_refusal(FEW), await cost_of_a_refusal(VMS)

    assert many <= few * TOLERANCE, f"{many} calls among {VMS}, {few} among {FEW}"
