"""Two installations share a cluster: each handles its own VMs, and a VM that changes its class keeps its pod."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.domain.vm import launcher
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import errors
from controller.kube.resources import PODS
from controller.kube.verbs import CREATE_DEADLINE
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process

BLUE = "blue"


@pytest.fixture
def cluster() -> Cluster:
    """Two nodes, and one VM of no class."""
    found = Cluster()
    found.add_node("node-1")
    found.add_node("node-2")
    found.apply_vm()
    return found


def hand_over(cluster: Cluster, to: str | None) -> None:
    """Change a VM's class."""
    cluster.edit(VIRTUAL_MACHINES, "default/vm-1", labels={} if to is None else {names.CONTROLLER_CLASS: to})


async def settle(*processes: Process) -> None:
    """Run all processes, the scheduler and the kubelet until nothing changes any more."""
    cluster = processes[0].cluster
    for _ in range(60):
        before = cluster.revision
        for process in processes:
            process.deliver()
        again = [await process.step() for process in processes]
        cluster.run_pods()
        cluster.finish_deletions()
        if cluster.revision == before:
            if not any(again):
                return
            cluster.pass_time(1.0)
    raise AssertionError(f"not settled: {cluster.objects}")


async def test_each_class_handles_its_own_vms(cluster: Cluster) -> None:
    """The controller of another class does nothing."""
    blue = Process(cluster, of_class=BLUE)
    await settle(blue)
    assert cluster.writes == []

    await settle(blue, Process(cluster))
    assert cluster.status()["phase"] == "Running"


@pytest.mark.parametrize(("first", "second"), [(None, BLUE), (BLUE, None), (BLUE, "green")])
async def test_a_vm_that_changes_its_class_keeps_its_pod(
    cluster: Cluster, first: str | None, second: str | None
) -> None:
    """The pod gets the new class's label, and leaves the old class's cache."""
    hand_over(cluster, first)
    old, new = Process(cluster, of_class=first), Process(cluster, of_class=second)
    await settle(old, new)
    [pod] = cluster.live()
    cluster.pass_time(3600)

    hand_over(cluster, second)
    await settle(old, new)

    [after] = cluster.live()
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert after["metadata"]["labels"].get(names.CONTROLLER_CLASS) == second
    assert cluster.status()["phase"] == "Running"
    assert len(old.caches.pods) == 0
    assert cluster.violations == []

    # From now on the new class acts.
    cluster.remove(PODS, f"default/{after['metadata']['name']}")
    await settle(old, new)
    assert cluster.status()["phase"] == "Running"
    assert cluster.live()[0]["metadata"]["labels"].get(names.CONTROLLER_CLASS) == second


async def test_the_old_class_does_not_delete_the_pod_of_a_vm_that_changed_its_class(cluster: Cluster) -> None:
    """Without a controller of the new class the pod stays; one live read is enough."""
    old = Process(cluster)
    await settle(old)
    [pod] = cluster.live()
    hand_over(cluster, BLUE)
    await settle(old)
    before = len(cluster.requests)
    cluster.edit(PODS, f"default/{pod['metadata']['name']}", annotations={"touched": "yes"})
    await settle(old)

    assert [item["metadata"]["uid"] for item in cluster.live()] == [pod["metadata"]["uid"]]
    assert len(cluster.requests) == before


async def test_a_vm_that_returns_to_its_class_is_handled_again(cluster: Cluster) -> None:
    """As if it had never been away."""
    old = Process(cluster)
    await settle(old)
    hand_over(cluster, BLUE)
    await settle(old)
    hand_over(cluster, None)
    await settle(old)
    cluster.pass_time(3600)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    await settle(old)

    assert cluster.status()["phase"] == "Running"
    assert cluster.status()["incarnation"] == 1


async def test_the_pod_of_a_deleted_vm_is_deleted_by_its_own_class_only(cluster: Cluster) -> None:
    """The other one does not know the VM."""
    hand_over(cluster, BLUE)
    blue, other = Process(cluster, of_class=BLUE), Process(cluster)
    await settle(blue, other)
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    await settle(other)
    assert len(cluster.live()) == 1
    await settle(blue, other)
    assert cluster.live() == []


async def test_a_migration_is_carried_out_by_the_class_of_its_vm(cluster: Cluster) -> None:
    """The other class neither fails nor prunes it."""
    hand_over(cluster, BLUE)
    blue, other = Process(cluster, of_class=BLUE), Process(cluster)
    await settle(blue, other)
    cluster.pass_time(3600)
    cluster.migrate()
    await settle(other)
    assert cluster.migration()["phase"] == "Pending"

    await settle(blue, other)
    assert cluster.migration()["phase"] == "Succeeded"


async def test_a_migration_of_a_missing_vm_fails_under_two_classes(cluster: Cluster) -> None:
    """By either controller."""
    cluster.migrate(vm="missing")
    await settle(Process(cluster), Process(cluster, of_class=BLUE))

    assert cluster.migration()["phase"] == "Failed"


@pytest.mark.parametrize("moment", range(12))
async def test_a_vm_may_change_its_class_at_any_moment_of_its_start(cluster: Cluster, moment: int) -> None:
    """It never has two pods, and runs in the end."""
    old, new = Process(cluster), Process(cluster, of_class=BLUE)
    one_round: list[Callable[[], Awaitable[object] | None]] = [
        *(old.deliver, old.step, new.deliver, new.step, cluster.run_pods)
    ]
    for step in (one_round * 6)[: moment * 2]:
        result = step()
        if result is not None:
            await result
    hand_over(cluster, BLUE)
    await settle(new, old)
    await settle(old, new)

    assert cluster.violations == []
    assert len(cluster.live()) == 1
    assert cluster.status()["phase"] == "Running"
    assert cluster.live()[0]["metadata"]["labels"][names.CONTROLLER_CLASS] == BLUE


async def started_unseen(cluster: Cluster) -> tuple[Process, Process]:
    """Return the old class's process, which saw a start and nothing since, and the new one's, an incarnation later."""
    cluster.apply_vm(running=False)
    old, new = Process(cluster), Process(cluster, of_class=BLUE)
    await settle(old, new)
    cluster.pass_time(3600)
    cluster.apply_vm(running=True)
    old.deliver()
    hand_over(cluster, BLUE)
    await settle(new)
    cluster.pass_time(60)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    await settle(new)
    return old, new


async def create_late(cluster: Cluster) -> None:
    """Commit the old class's create for the previous incarnation, sent long ago."""
    incarnation = cluster.status()["incarnation"] - 1
    vm = msgspec.convert(cluster.vm(), VirtualMachine)
    before = msgspec.structs.replace(vm, metadata=msgspec.structs.replace(vm.metadata, labels={}))
    shares = launcher.requested(before)
    late = launcher.manifest(before, incarnation, shares, shares, LauncherPolicy())
    await cluster.create(PODS, late, namespace="default", server_deadline=CREATE_DEADLINE)


async def test_the_old_class_creates_no_pod_when_its_watch_lags_behind_the_change_of_class(cluster: Cluster) -> None:
    """A live read before the create shows the change."""
    old, new = await started_unseen(cluster)
    await old.reconcile()
    await settle(old, new)
    assert cluster.violations == []
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


async def test_a_refused_create_is_not_retried_after_a_change_of_class(cluster: Cluster) -> None:
    """The quota would admit a second pod by then."""
    old, new = Process(cluster), Process(cluster, of_class=BLUE)
    quota = errors.ForbiddenError(403, "Forbidden", "exceeded quota")
    cluster.faults.append(Fault("create", PODS.plural, quota, commit=False))
    old.deliver()
    await old.reconcile()
    hand_over(cluster, BLUE)
    await settle(new)
    cluster.pass_time(60)
    cluster.remove(PODS, f"default/{cluster.status()['podName']}")
    await settle(new)
    await old.reconcile()
    assert cluster.violations == []


async def test_a_late_pod_of_the_old_class_is_handed_over_and_deleted(cluster: Cluster) -> None:
    """Its create had passed every check; the new class deletes it."""
    old, new = await started_unseen(cluster)
    await create_late(cluster)
    assert len(cluster.live()) == 2

    await settle(old, new)
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


async def test_a_failed_hand_over_of_a_pod_is_retried(cluster: Cluster) -> None:
    """Until the pod has the new class's label."""
    old, new = await started_unseen(cluster)
    await create_late(cluster)
    cluster.faults.append(Fault("patch", PODS.plural, errors.ServerError(500, "InternalError", "no"), commit=False))
    await settle(old, new)
    assert [pod["metadata"]["name"] for pod in cluster.live()] == [cluster.status()["podName"]]


async def test_a_pod_with_another_name_is_not_handed_over(cluster: Cluster) -> None:
    """The controller did not create it."""
    hand_over(cluster, BLUE)
    uid = cluster.vm()["metadata"]["uid"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": "vm-1", "uid": uid, "controller": True}
    metadata = {
        "name": "virt-launcher-vm-1-abcde",
        "labels": {names.VM_LABEL: "vm-1"},
        "annotations": {names.INCARNATION: "0"},
        "ownerReferences": [owner],
    }
    await cluster.create(PODS, {"metadata": metadata, "spec": {}}, namespace="default", server_deadline=CREATE_DEADLINE)
    before = len(cluster.writes)
    await settle(Process(cluster))
    assert len(cluster.writes) == before
