"""Migrations to a node that has room once pods of lower priority are preempted."""

from __future__ import annotations

from controller.kube.resources import PODS
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process

BY_PREEMPTION = "Preflight found room on node node-2 by preemption of pods of lower priority"


def crowd(cluster: Cluster, name: str, cpu: str, priority: int) -> None:
    """Bind a foreign pod to node-2."""
    container = {"resources": {"requests": {"cpu": cpu}}}
    spec = {"nodeName": "node-2", "priority": priority, "containers": [container]}
    metadata = {"name": name, "namespace": "other"}
    cluster.add(PODS.plural, {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})


async def migrating(*vms: str, low: str, high: str = "0") -> tuple[Cluster, Process]:
    """Create migrations of VMs of 16 CPU and priority 0; node-2 has pods of the priorities -10 and 10."""
    cluster = Cluster()
    cluster.add_node("node-1")
    for vm in vms:
        cluster.apply_vm(vm, cpu="0.5", memory="0.1")
    process = Process(cluster)
    await process.settle()
    cluster.pass_time(3600)
    cluster.add_node("node-2")
    crowd(cluster, "low", low, -10)
    crowd(cluster, "high", high, 10)
    for vm in vms:
        cluster.migrate(f"m-{vm}", vm=vm, unschedulableTimeoutSeconds=60)
    process.deliver()
    return cluster, process


async def test_a_vm_moves_to_a_node_that_has_room_by_preemption_and_its_migration_says_so() -> None:
    """In a condition that stays, and in an Event."""
    cluster, process = await migrating("a", low="32")
    await process.settle()
    status = cluster.migration("m-a")
    assert (status["phase"], status["targetNode"]) == ("Succeeded", "node-2")
    assert [found["type"] for found in status["conditions"]] == ["Completed", "RoomFound"]
    assert status["conditions"][1]["message"] == BY_PREEMPTION
    assert [event.note for event in process.events if event.reason == "RoomFound"] == [BY_PREEMPTION]


async def test_a_vm_preempts_no_pod_of_a_higher_priority() -> None:
    """It waits, untouched."""
    cluster, process = await migrating("a", low="1", high="31")
    await process.step()
    status = cluster.migration("m-a")
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Pending", "NoRoom")
    assert status["message"].endswith("1 without room (node-2 lacks 15 CPU even by preemption)")


async def test_capacity_that_is_reserved_by_preemption_is_not_granted_twice() -> None:
    """One victim makes room for one VM; until it is gone, its node is overbooked."""
    cluster, process = await migrating("a", "b", low="16", high="16")
    await process.step()
    assert cluster.status("a")["migration"]["byPreemption"]
    assert cluster.migration("m-b")["message"].endswith(
        "1 without room (node-2 is overbooked by 16 CPU, and lacks 16 CPU even by preemption)"
    )
