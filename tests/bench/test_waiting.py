"""The guard of migrations that wait: how many of them there are costs neither lists of pods nor work in a reconcile.

Counted on the model of the API server, with a fleet that is written into it as it is, so that only the migrations'
reconciler works: 1,000 running VMs, fifty on each of 20 nodes, no two of a node of one size, so that no two
migrations ask for the same; and a node that is free. All keys are looked at every second, sooner than in life.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import pytest

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.listing import PAGE_SIZE
from controller.kube import errors
from controller.kube.resources import PODS
from controller.observe.holdings import READ_PERIOD
from controller.reconcilers.migration.dry_run import ASK_AGAIN
from controller.reconcilers.migration.slots import Limits
from tests.bench import counting
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.unit.reconcilers.harness import Process

pytestmark = pytest.mark.timeout(60)  # it is seconds of work, and the machine may be busy

NODES: Final = 20
A_NODE: Final = 50
VMS: Final = NODES * A_NODE
STRANGERS: Final = 10_000 - VMS
"""Pods of others, on nodes of others."""
FEW: Final = 50
TOLERANCE: Final = 1.02
"""How many more calls, as a ratio, a reconcile may take among many than among few. Seen is no difference, of about 120
calls; one more for each that waits would be 950 more."""


def pod(name: str, node: str, cpu: str = "0.1") -> Document:
    """Return a running pod of somebody else."""
    container = {"resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "other"},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running"},
    }


def run(cluster: Cluster, name: str, node: str, cpu: str) -> None:
    """Let a VM run on a node, as if a controller had brought it there."""
    vm = cluster.apply_vm(name, cpu=cpu, memory="0.01")
    owner = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": name, "uid": vm["metadata"]["uid"]}
    metadata = {
        "name": f"virt-launcher-{name}",
        "namespace": "default",
        "labels": {names.VM_LABEL: name},
        "annotations": {names.INCARNATION: "0"},
        "ownerReferences": [{**owner, "controller": True}],
    }
    made = cluster.add(PODS.plural, {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running"}})
    status = {"podName": made["metadata"]["name"], "podUID": made["metadata"]["uid"], "nodeName": node}
    cluster.set_status(
        VIRTUAL_MACHINES, f"default/{name}", {"phase": "Running", "incarnation": 0, "conditions": [], **status}
    )


def fleet(*, full: bool, strangers: int = 0) -> Cluster:
    """Return the fleet; where it is `full`, no node has room for one more VM."""
    cluster = Cluster()
    sources = [f"source-{number}" for number in range(NODES)]
    for node in (*sources, "free"):
        cluster.add_node(node)
        if full:
            cluster.add(PODS.plural, pod(f"filler-{node}", node, cpu="32"))
    for number in range(VMS):
        run(cluster, f"vm-{number}", sources[number // A_NODE], f"{0.01 + number % A_NODE / 1000:.3f}")
    for number in range(strangers):
        cluster.add(PODS.plural, pod(f"stranger-{number}", f"elsewhere-{number % NODES}"))
    cluster.pass_time(3600)
    return cluster


def ask(cluster: Cluster, vms: Iterable[int]) -> None:
    """Ask for the migrations of these VMs."""
    for number in vms:
        cluster.migrate(f"m-{number}", vm=f"vm-{number}")


async def look(process: Process, times: int) -> None:
    """Look at every migration that is queued or waits, once a second."""
    for _ in range(times):
        process.deliver()
        for key in list(process.moving):
            await process.work("migrations", key)
        process.cluster.pass_time(1)
    process.deliver()


def why(cluster: Cluster, vms: Iterable[int]) -> set[tuple[str, str]]:
    """Return the phases of migrations and the reasons for which they wait."""
    told = [cluster.migration(f"m-{number}") for number in vms]
    return {(status["phase"], status["conditions"][0]["reason"]) for status in told if status.get("conditions")}


async def test_no_pods_are_listed_while_no_slot_is_free() -> None:
    """Whoever waits, and whoever comes meanwhile."""
    cluster = fleet(full=False, strangers=STRANGERS)
    process = Process(cluster, limits=Limits())
    ask(cluster, range(VMS - FEW))
    await look(process, 2)
    assert cluster.requests.count("patch virtualmachines") == 5, "as many as may go at once"
    cluster.requests.clear()
    ask(cluster, range(VMS - FEW, VMS))
    await look(process, 10)

    assert cluster.requests.count("list pods") == 0
    assert why(cluster, range(5, VMS)) == {("Pending", "WaitingForTurn")}


async def test_pods_are_listed_once_in_five_seconds_at_most_however_many_come_and_find_no_room() -> None:
    """Without limits; each that is new would want what is newer than itself."""
    cluster = fleet(full=True, strangers=STRANGERS)
    process = Process(cluster, limits=Limits(0, 0))
    listed: list[float] = []

    async def note(request: str) -> None:
        if request == "list pods":
            listed.append(cluster.now.timestamp())

    cluster.turn = note
    for second in range(8):
        ask(cluster, range(second, VMS, 8))
        await look(process, 1)
    await look(process, 3)

    pages = -(-len(cluster.pods()) // PAGE_SIZE)
    assert len(listed) == 3 * pages
    assert [later - earlier for earlier, later in pairwise(listed[::pages])] == [READ_PERIOD] * 2
    assert why(cluster, range(VMS)) == {("Pending", "NoRoom")}


async def cost(waiting: int, limits: Limits, *, full: bool) -> int:
    """Return the most calls that a reconcile takes of a migration among so many that wait."""
    cluster = fleet(full=full)
    process = Process(cluster, limits=limits)
    asked = range(0, VMS, VMS // waiting)
    ask(cluster, asked)
    await look(process, 2)
    costs = []
    for number in asked[5 :: len(asked) // FEW]:  # the first five may have gone
        with counting.counted() as calls:
            await process.migrations.reconcile(f"default/vm-{number}")
        costs.append(calls.count)
    assert {phase for phase, _ in why(cluster, asked[5:])} == {"Pending"}
    return max(costs)


@pytest.mark.parametrize(
    ("limits", "full"), [(Limits(), False), (Limits(), True), (Limits(0, 0), True)], ids=["turn", "room", "no limits"]
)
async def test_a_reconcile_costs_the_same_among_a_thousand_that_wait_as_among_fifty(
    limits: Limits, *, full: bool
) -> None:
    """For their turn, or for room."""
    few, many = await cost(FEW, limits, full=full), await cost(VMS, limits, full=full)

    assert many <= few * TOLERANCE, f"{many} calls among {VMS}, {few} among {FEW}"


async def cost_of_a_refusal(waiting: int) -> int:
    """Return the calls of a reconcile that finds room, whose target a quota refuses, while so many find none."""
    cluster = fleet(full=True)
    run(cluster, "small", "source-0", "0.001")
    cluster.add_node("nook")
    cluster.add(PODS.plural, pod("filler-nook", "nook", cpu="31.9"))
    exceeded = "exceeded quota: q, requested: pods=1, used: pods=9, limited: pods=1"
    refusal = Fault("dry-run", PODS.plural, errors.ForbiddenError(403, "Forbidden", exceeded), commit=False)
    cluster.intercept = lambda method, _: refusal if method == "dry-run" else None
    process = Process(cluster, limits=Limits(0, 0))
    asked = range(0, VMS, VMS // waiting)
    ask(cluster, asked)
    cluster.migrate("m-small", vm="small")
    await look(process, 2)
    cluster.pass_time(ASK_AGAIN)
    cluster.requests.clear()
    with counting.counted() as calls:
        await process.migrations.reconcile("default/small")
    assert cluster.requests.count("dry-run pods") == 1
    assert cluster.migration("m-small")["conditions"][0]["reason"] == "QuotaExceeded"
    assert why(cluster, asked) == {("Pending", "NoRoom")}
    return calls.count


async def test_a_refused_target_costs_the_same_among_a_thousand_without_room_as_among_fifty() -> None:
    """The room that it gives back was there before, when they found it too small."""
    few, many = await cost_of_a_refusal(FEW), await cost_of_a_refusal(VMS)

    assert many <= few * TOLERANCE, f"{many} calls among {VMS}, {few} among {FEW}"
