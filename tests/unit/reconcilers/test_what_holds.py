"""VMs and pods whose deletion a foreign finalizer blocks: the status reports the state, and the finalizer."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from controller.domain.ratio import ReferenceNode
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm.decide import NAMESAKE_PATIENCE
from controller.kube.resources import NODES, PODS
from controller.observe.caches import Caches
from controller.observe.loads import NodeLoads
from controller.telemetry.vms import VMMetrics, VMSeries
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process, running_alone

VM = "default/vm-1"
FINALIZER = "example.com/hold"


def delete_vm(cluster: Cluster, *finalizers: str) -> None:
    """Begin the deletion of a VM with these finalizers."""
    cluster.edit(VIRTUAL_MACHINES, VM, finalizers=list(finalizers), deletionTimestamp="2026-01-15T11:00:00Z")


def add_finalizer(cluster: Cluster) -> str:
    """Add a foreign finalizer to the VM's pod; return the pod's name."""
    name = str(cluster.status()["podName"])
    cluster.edit(PODS, f"default/{name}", finalizers=[FINALIZER])
    return name


def ready(cluster: Cluster) -> tuple[str, str, str]:
    """Return status, reason and message of Ready."""
    found = cluster.status()["conditions"][0]
    assert found["type"] == "Ready"
    return found["status"], found["reason"], found.get("message", "")


# --- a VM that is being deleted --------------------------------------------------------------------------------


async def test_a_vm_with_a_finalizer_is_not_ready_while_its_pod_terminates_and_stopped_afterwards(
    cluster: Cluster,
) -> None:
    """Its status names the finalizer."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    delete_vm(cluster, FINALIZER)
    for _ in range(3):
        process.deliver()
        await process.step()
    assert cluster.status()["phase"] == "Running"
    assert ready(cluster) == ("False", "PodTerminating", f"Pod {pod} is being deleted")
    await process.settle()
    status = cluster.status()
    assert status["phase"] == "Stopped"
    assert ready(cluster) == ("False", "Terminating", f"The VM is being deleted, and held by finalizer {FINALIZER}")
    assert {"nodeName", "podName", "podUID", "startFailure", "migration"} & status.keys() == set()
    assert status["observedGeneration"] == cluster.vm()["metadata"]["generation"]


async def test_a_vm_with_a_finalizer_is_not_counted_as_running(cluster: Cluster) -> None:
    """Neither by phase, nor as a VMI, nor on its node."""
    process = await running_alone(cluster)
    delete_vm(cluster, FINALIZER)
    await process.settle()
    seen = Caches()
    metrics = VMMetrics(CollectorRegistry(), (seen.vms,))
    nodes = NodeLoads(process.nodes, (seen.pods,), ReferenceNode.of(cpu="32", memory="256Gi"))
    seen.vms.replace(list(process.caches.vms), "1")
    seen.pods.replace(list(process.caches.pods), "1")
    [family] = metrics.collect()
    assert {it.labels["phase"]: it.value for it in family.samples if it.value} == {"Stopped": 1}
    assert "vm-1" not in "".join(VMSeries((seen.vms,)).pieces())
    assert [usage.vms for _, usage in nodes.usage()] == [0]


async def test_a_vm_with_a_finalizer_costs_no_further_write_by_this_process_or_the_next(cluster: Cluster) -> None:
    """Although a new process expects a create for a young VM."""
    process = await running_alone(cluster)
    delete_vm(cluster, FINALIZER)
    await process.settle()
    before = list(cluster.writes)
    cluster.pass_time(3600)
    await process.reconcile()
    await Process(cluster).settle()
    assert cluster.writes == before


@pytest.mark.parametrize("finalizers", [("foregroundDeletion",), ("orphan",), ()])
async def test_a_deletion_without_a_foreign_finalizer_costs_no_status_write(
    cluster: Cluster, finalizers: tuple[str, ...]
) -> None:
    """Kubernetes removes its own finalizers at once."""
    process = await running_alone(cluster)
    before = cluster.writes.count("patch virtualmachines")
    if finalizers:
        delete_vm(cluster, *finalizers)
    else:
        cluster.remove(VIRTUAL_MACHINES, VM)
    await process.settle()
    assert cluster.writes.count("patch virtualmachines") == before


@pytest.mark.parametrize("trouble", ["invalid", "refused", "stopped", "never started"])
async def test_a_vm_in_any_state_is_stopped_once_it_is_being_deleted(cluster: Cluster, trouble: str) -> None:
    """No warning remains."""
    process = Process(cluster)
    if trouble == "invalid":
        cluster.apply_vm(cpu="plenty")
    elif trouble == "stopped":
        cluster.apply_vm(running=False)
    if trouble != "never started":
        await process.settle()
    cluster.pass_time(3600)
    delete_vm(cluster, FINALIZER, "example.com/other")
    await process.settle()
    assert cluster.pods() == []
    assert cluster.status()["phase"] == "Stopped"
    assert ready(cluster)[1:] == (
        "Terminating",
        f"The VM is being deleted, and held by finalizers {FINALIZER}, example.com/other",
    )
    others = [it["type"] for it in cluster.status()["conditions"][1:]]
    assert [it for it in others if not it.startswith("Phase")] == []


async def test_a_migration_of_a_vm_that_is_being_deleted_fails(cluster: Cluster) -> None:
    """Its claim is removed."""
    process = await running_alone(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    for _ in range(2):
        process.deliver()
        await process.step()
    assert "migration" in cluster.status()
    delete_vm(cluster, FINALIZER)
    await process.settle()
    assert cluster.migration()["phase"] == "Failed"
    assert cluster.status()["phase"] == "Stopped"
    assert "migration" not in cluster.status()


async def test_an_orphaned_pod_is_not_the_vms_any_more(cluster: Cluster) -> None:
    """After `--cascade=orphan` the VM has no pod, and the pod stays."""
    process = await running_alone(cluster)
    pod = cluster.status()["podName"]
    delete_vm(cluster, "orphan", FINALIZER)
    await process.settle()
    assert cluster.status()["podName"] == pod
    cluster.edit(PODS, f"default/{pod}", ownerReferences=[])
    cluster.edit(VIRTUAL_MACHINES, VM, finalizers=[FINALIZER])
    await process.settle()
    assert cluster.status()["phase"] == "Stopped"
    assert "podName" not in cluster.status()
    assert "deletionTimestamp" not in cluster.pods()[0]["metadata"]


async def test_a_vm_being_deleted_whose_pod_no_cache_shows_is_not_stopped(cluster: Cluster) -> None:
    """A live read finds the pod without labels, and it is deleted."""
    process = await running_alone(cluster)
    cluster.edit(PODS, f"default/{cluster.status()['podName']}", labels={})
    delete_vm(cluster, FINALIZER)
    process.deliver()
    await process.reconcile()
    assert cluster.status()["phase"] == "Running"
    await process.settle()
    assert (cluster.status()["phase"], cluster.pods()) == ("Stopped", [])


# --- a pod with a finalizer ------------------------------------------------------------------------------------


async def test_ready_names_the_finalizer_of_a_terminating_pod(cluster: Cluster) -> None:
    """It explains why no next pod is created."""
    process = await running_alone(cluster)
    pod = add_finalizer(cluster)
    cluster.edit(PODS, f"default/{pod}", deletionTimestamp="2026-01-15T11:00:00Z")
    await process.settle()
    message = f"Pod {pod} is being deleted; it is held by finalizer {FINALIZER}"
    assert ready(cluster) == ("False", "PodTerminating", message)


async def test_ready_names_the_finalizer_of_the_source_pod_during_a_migration(cluster: Cluster) -> None:
    """The next incarnation has begun; its pod waits for the source."""
    process = await running_alone(cluster)
    cluster.add_node("node-2")
    pod = add_finalizer(cluster)
    cluster.migrate()
    for _ in range(8):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
    assert cluster.status()["phase"] == "Scheduling"
    assert ready(cluster)[1] == "PodTerminating"
    assert ready(cluster)[2].startswith(f"Pod {pod} is being deleted; it is held by finalizer {FINALIZER}")
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    await process.settle()
    assert (cluster.status()["phase"], ready(cluster)[1]) == ("Running", "GuestRunning")


async def test_a_source_pod_that_terminates_quickly_costs_no_status_write(cluster: Cluster) -> None:
    """Two writes of the VM: its claim, which ends the incarnation, and its release, with which the next one runs."""
    process = await running_alone(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    before = cluster.writes.count("patch virtualmachines")
    seen = set()
    for _ in range(20):
        process.deliver()
        await process.step()
        seen.add(ready(cluster)[1])
        cluster.run_pods()
        cluster.finish_deletions()
    assert cluster.migration()["phase"] == "Succeeded"
    assert "PodTerminating" not in seen
    assert cluster.writes.count("patch virtualmachines") - before <= 3


async def test_a_pod_with_a_finalizer_on_a_deleted_node_is_force_deleted_once(cluster: Cluster) -> None:
    """Its grace period is 0; the status names the finalizer."""
    process = await running_alone(cluster)
    pod = add_finalizer(cluster)
    cluster.remove(NODES, "/node-1")
    await process.settle()
    for _ in range(5):
        cluster.edit(PODS, f"default/{pod}", labels=cluster.pods()[0]["metadata"]["labels"])
        process.deliver()
        await process.reconcile()
    assert cluster.requests.count("delete pods") == 1
    assert ready(cluster)[1:] == ("PodTerminating", f"Pod {pod} is being deleted; it is held by finalizer {FINALIZER}")


async def test_ready_names_the_finalizer_of_the_previous_incarnations_pod_of_a_stopped_vm(cluster: Cluster) -> None:
    """It was stopped between two pods."""
    process = await running_alone(cluster)
    cluster.add_node("node-2")
    pod = add_finalizer(cluster)
    cluster.migrate()
    for _ in range(6):
        process.deliver()
        await process.step()
    cluster.apply_vm(running=False)
    await process.settle()
    assert ready(cluster)[1:] == ("PodTerminating", f"Pod {pod} is being deleted; it is held by finalizer {FINALIZER}")


# --- a VM that waits for its namesake's pod --------------------------------------------------------------------


async def replaced(cluster: Cluster) -> tuple[Process, str]:
    """Return a process with a VM whose namesake left a pod with a finalizer, and that pod's name."""
    process = await running_alone(cluster)
    pod = add_finalizer(cluster)
    cluster.remove(VIRTUAL_MACHINES, VM)
    cluster.apply_vm()
    return process, pod


async def test_ready_names_the_namesakes_pod_that_a_vm_waits_for(cluster: Cluster) -> None:
    """With the pod's finalizer."""
    process, pod = await replaced(cluster)
    await process.settle()
    assert cluster.status()["phase"] == "Pending"
    message = f"Pod {pod} of the previous VM of this name is deleted first; it is held by finalizer {FINALIZER}"
    assert ready(cluster) == ("False", "NamesakePodExists", message)
    assert len(cluster.pods()) == 1
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    await process.settle()
    assert (cluster.status()["phase"], ready(cluster)[1]) == ("Running", "GuestRunning")


async def test_the_wait_for_a_namesakes_pod_is_published_after_some_seconds(cluster: Cluster) -> None:
    """Most are deleted by then, without a write."""
    process, _ = await replaced(cluster)
    for _ in range(3):
        process.deliver()
        await process.step()
    assert not cluster.status().get("conditions")
    cluster.pass_time(NAMESAKE_PATIENCE)
    process.deliver()
    await process.step()
    assert ready(cluster)[1] == "NamesakePodExists"


async def test_a_vm_that_waited_for_its_namesake_is_read_live_before_its_pod_is_created(cluster: Cluster) -> None:
    """Another class's controller may have created its pod meanwhile."""
    process, pod = await replaced(cluster)
    await process.settle()
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    cluster.finish_deletions()
    cluster.edit(VIRTUAL_MACHINES, VM, labels={"simulation.node-classifier.io/controller-class": "blue"})
    process.deliver(withhold=VIRTUAL_MACHINES.plural)
    await process.reconcile()
    assert cluster.pods() == []
