"""VMs and pods that somebody's finalizer holds: the status says what is, and what it waits for."""

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
from tests.unit.reconcilers.harness import Process, running

VM = "default/vm-1"
HOLD = "example.com/hold"


def delete_vm(cluster: Cluster, *finalizers: str) -> None:
    """Begin the deletion of a VM that these finalizers hold."""
    cluster.edit(VIRTUAL_MACHINES, VM, finalizers=list(finalizers), deletionTimestamp="2026-01-15T11:00:00Z")


def hold_pod(cluster: Cluster) -> str:
    """Let somebody's finalizer hold the VM's pod; return its name."""
    name = str(cluster.status()["podName"])
    cluster.edit(PODS, f"default/{name}", finalizers=[HOLD])
    return name


def ready(cluster: Cluster) -> tuple[str, str, str]:
    """Return status, reason and message of Ready."""
    told = cluster.status()["conditions"][0]
    assert told["type"] == "Ready"
    return told["status"], told["reason"], told.get("message", "")


# --- a VM that is being deleted and held -----------------------------------------------------------------------


async def test_a_held_vm_is_not_ready_while_its_pod_goes_and_stopped_once_it_is_gone(cluster: Cluster) -> None:
    """The status follows the pod to the end, and names who holds the VM."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    delete_vm(cluster, HOLD)
    for _ in range(3):
        process.deliver()
        await process.step()
    assert cluster.status()["phase"] == "Running"
    assert ready(cluster) == ("False", "PodTerminating", f"Pod {pod} is being deleted")
    await process.settle()
    status = cluster.status()
    assert status["phase"] == "Stopped"
    assert ready(cluster) == ("False", "Terminating", f"The VM is being deleted, and held by finalizer {HOLD}")
    assert {"nodeName", "podName", "podUID", "startFailure", "migration"} & status.keys() == set()
    assert status["observedGeneration"] == cluster.vm()["metadata"]["generation"]


async def test_a_held_vm_is_counted_nowhere_as_running(cluster: Cluster) -> None:
    """Neither by phase, nor as a VMI, nor on its node."""
    process = await running(cluster)
    delete_vm(cluster, HOLD)
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


async def test_a_held_vm_costs_no_further_write_by_this_process_or_the_next(cluster: Cluster) -> None:
    """Also although a new process takes a young VM for one whose create may be under way."""
    process = await running(cluster)
    delete_vm(cluster, HOLD)
    await process.settle()
    before = list(cluster.writes)
    cluster.pass_time(3600)
    await process.reconcile()
    await Process(cluster).settle()
    assert cluster.writes == before


@pytest.mark.parametrize("finalizers", [("foregroundDeletion",), ("orphan",), ()])
async def test_a_plain_deletion_costs_no_write_of_the_status(cluster: Cluster, finalizers: tuple[str, ...]) -> None:
    """Kubernetes' own finalizers are gone in a moment."""
    process = await running(cluster)
    before = cluster.writes.count("patch virtualmachines")
    if finalizers:
        delete_vm(cluster, *finalizers)
    else:
        cluster.remove(VIRTUAL_MACHINES, VM)
    await process.settle()
    assert cluster.writes.count("patch virtualmachines") == before


@pytest.mark.parametrize("trouble", ["invalid", "refused", "stopped", "never started"])
async def test_whatever_a_vm_was_it_is_stopped_once_it_is_deleted_and_held(cluster: Cluster, trouble: str) -> None:
    """No condition is left that asks somebody to see to it."""
    process = Process(cluster)
    if trouble == "invalid":
        cluster.apply_vm(cpu="plenty")
    elif trouble == "stopped":
        cluster.apply_vm(running=False)
    if trouble != "never started":
        await process.settle()
    cluster.pass_time(3600)
    delete_vm(cluster, HOLD, "example.com/other")
    await process.settle()
    assert cluster.pods() == []
    assert cluster.status()["phase"] == "Stopped"
    assert ready(cluster)[1:] == (
        "Terminating",
        f"The VM is being deleted, and held by finalizers {HOLD}, example.com/other",
    )
    others = [it["type"] for it in cluster.status()["conditions"][1:]]
    assert [it for it in others if not it.startswith("Phase")] == []


async def test_a_migration_of_a_vm_that_is_deleted_and_held_ends(cluster: Cluster) -> None:
    """Nobody moves what only waits for its end."""
    process = await running(cluster)
    cluster.add_node("node-2")
    cluster.migrate()
    for _ in range(2):
        process.deliver()
        await process.step()
    assert "migration" in cluster.status()
    delete_vm(cluster, HOLD)
    await process.settle()
    assert cluster.migration()["phase"] == "Failed"
    assert cluster.status()["phase"] == "Stopped"
    assert "migration" not in cluster.status()


async def test_a_pod_that_was_freed_is_not_the_held_vms_any_more(cluster: Cluster) -> None:
    """`--cascade=orphan` frees it; the VM that somebody holds has none from then on, and the pod lives on."""
    process = await running(cluster)
    pod = cluster.status()["podName"]
    delete_vm(cluster, "orphan", HOLD)
    await process.settle()
    assert cluster.status()["podName"] == pod
    cluster.edit(PODS, f"default/{pod}", ownerReferences=[])
    cluster.edit(VIRTUAL_MACHINES, VM, finalizers=[HOLD])
    await process.settle()
    assert cluster.status()["phase"] == "Stopped"
    assert "podName" not in cluster.status()
    assert "deletionTimestamp" not in cluster.pods()[0]["metadata"]


async def test_a_held_vm_whose_pod_no_cache_shows_is_not_stopped(cluster: Cluster) -> None:
    """Stopped means that there is no pod: a live read finds the one that lost its labels, and it goes."""
    process = await running(cluster)
    cluster.edit(PODS, f"default/{cluster.status()['podName']}", labels={})
    delete_vm(cluster, HOLD)
    process.deliver()
    await process.reconcile()
    assert cluster.status()["phase"] == "Running"
    await process.settle()
    assert (cluster.status()["phase"], cluster.pods()) == ("Stopped", [])


# --- a pod that somebody holds ---------------------------------------------------------------------------------


async def test_a_pod_that_is_held_is_named_with_its_holder(cluster: Cluster) -> None:
    """Whoever deletes a pod and waits for the VM to come back reads why it does not."""
    process = await running(cluster)
    pod = hold_pod(cluster)
    cluster.edit(PODS, f"default/{pod}", deletionTimestamp="2026-01-15T11:00:00Z")
    await process.settle()
    message = f"Pod {pod} is being deleted; it is held by finalizer {HOLD}"
    assert ready(cluster) == ("False", "PodTerminating", message)


async def test_a_vm_that_cannot_move_since_its_old_pod_is_held_says_so(cluster: Cluster) -> None:
    """The next life has begun, and its pod waits for the last one's to go."""
    process = await running(cluster)
    cluster.add_node("node-2")
    pod = hold_pod(cluster)
    cluster.migrate()
    for _ in range(8):
        process.deliver()
        await process.step()
        cluster.finish_deletions()
    assert cluster.status()["phase"] == "Scheduling"
    assert ready(cluster)[1] == "PodTerminating"
    assert ready(cluster)[2].startswith(f"Pod {pod} is being deleted; it is held by finalizer {HOLD}")
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    await process.settle()
    assert (cluster.status()["phase"], ready(cluster)[1]) == ("Running", "GuestRunning")


async def test_a_move_whose_old_pod_just_goes_costs_no_word_about_it(cluster: Cluster) -> None:
    """Two writes of the VM: its claim, with which its life ends, and its release, with which the next one runs."""
    process = await running(cluster)
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


async def test_a_held_pod_of_a_node_that_is_gone_is_told_and_not_deleted_over_and_over(cluster: Cluster) -> None:
    """Forced once, it has no grace left: only its finalizer keeps it."""
    process = await running(cluster)
    pod = hold_pod(cluster)
    cluster.remove(NODES, "/node-1")
    await process.settle()
    for _ in range(5):
        cluster.edit(PODS, f"default/{pod}", labels=cluster.pods()[0]["metadata"]["labels"])
        process.deliver()
        await process.reconcile()
    assert cluster.requests.count("delete pods") == 1
    assert ready(cluster)[1:] == ("PodTerminating", f"Pod {pod} is being deleted; it is held by finalizer {HOLD}")


async def test_a_stopped_vm_tells_of_the_last_lifes_pod_that_is_held(cluster: Cluster) -> None:
    """It was stopped on its way from one pod to the next: none takes the old one's place."""
    process = await running(cluster)
    cluster.add_node("node-2")
    pod = hold_pod(cluster)
    cluster.migrate()
    for _ in range(6):
        process.deliver()
        await process.step()
    cluster.apply_vm(running=False)
    await process.settle()
    assert ready(cluster)[1:] == ("PodTerminating", f"Pod {pod} is being deleted; it is held by finalizer {HOLD}")


# --- a VM that waits for its namesake's pod --------------------------------------------------------------------


async def made_anew(cluster: Cluster) -> tuple[Process, str]:
    """A VM whose namesake was deleted and left a pod that somebody holds; return that pod's name."""
    process = await running(cluster)
    pod = hold_pod(cluster)
    cluster.remove(VIRTUAL_MACHINES, VM)
    cluster.apply_vm()
    return process, pod


async def test_a_vm_that_waits_for_its_namesakes_pod_says_so(cluster: Cluster) -> None:
    """It names the pod, and what holds it."""
    process, pod = await made_anew(cluster)
    await process.settle()
    assert cluster.status()["phase"] == "Pending"
    message = f"Pod {pod} of the previous VM of this name is deleted first; it is held by finalizer {HOLD}"
    assert ready(cluster) == ("False", "NamesakePodExists", message)
    assert len(cluster.pods()) == 1
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    await process.settle()
    assert (cluster.status()["phase"], ready(cluster)[1]) == ("Running", "GuestRunning")


async def test_it_says_so_after_some_seconds_and_not_before(cluster: Cluster) -> None:
    """Most go at once, and a word about each would be a write for every VM that is made anew."""
    process, _ = await made_anew(cluster)
    for _ in range(3):
        process.deliver()
        await process.step()
    assert not cluster.status().get("conditions")
    cluster.pass_time(NAMESAKE_PATIENCE)
    process.deliver()
    await process.step()
    assert ready(cluster)[1] == "NamesakePodExists"


async def test_a_vm_that_waited_for_its_namesake_is_looked_at_before_it_gets_a_pod(cluster: Cluster) -> None:
    """What was known of it may be old by then: another class's controller may have made its pod."""
    process, pod = await made_anew(cluster)
    await process.settle()
    cluster.edit(PODS, f"default/{pod}", finalizers=[])
    cluster.finish_deletions()
    cluster.edit(VIRTUAL_MACHINES, VM, labels={"simulation.node-classifier.io/controller-class": "blue"})
    process.deliver(withhold=VIRTUAL_MACHINES.plural)
    await process.reconcile()
    assert cluster.pods() == []
