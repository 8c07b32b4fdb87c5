"""A VM that replaces a namesake between two events: no state of the namesake counts."""

from __future__ import annotations

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors
from controller.kube.resources import PODS
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process


def statuses(cluster: Cluster, since: int, name: str = "vm-1") -> list[dict[str, object]]:
    """Return every status of a VM that was written since then."""
    return [
        document["status"]
        for plural, document, deleted in cluster.log[since:]
        if plural == VIRTUAL_MACHINES.plural and document["metadata"]["name"] == name and not deleted
    ]


async def test_failed_creates_of_a_namesake_are_not_reported_for_the_new_vm() -> None:
    """No create of its own has failed."""
    cluster = Cluster()
    cluster.add_node()
    cluster.apply_vm()
    process = Process(cluster)
    quota = errors.ForbiddenError(403, "Forbidden", "exceeded quota")
    cluster.intercept = lambda method, kind: (
        Fault(method, kind, quota, commit=False) if (method, kind) == ("create", PODS.plural) else None
    )
    for _ in range(3):
        process.deliver()
        await process.step()
    assert cluster.status()["conditions"][0]["reason"] == "FailedCreate"
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    before = len(cluster.log)
    cluster.apply_vm()
    cluster.intercept = None
    await process.settle()
    assert "FailedCreate" not in str(statuses(cluster, before))
    assert cluster.status()["phase"] == "Running"


async def test_the_pending_status_of_a_namesake_does_not_count_for_the_new_vm() -> None:
    """It was pending because of a burst; only the process knew it."""
    cluster = Cluster()
    cluster.add_node()
    for number in range(30):
        cluster.apply_vm(f"vm-{number}", cpu="0.01")
    process = Process(cluster)
    for _ in range(2):
        await process.step()
        cluster.bind_pods()
        process.deliver()
    await process.step()
    assert "podUID" not in cluster.status("vm-29")
    cluster.remove(VIRTUAL_MACHINES, "default/vm-29")
    for pod in cluster.pods():
        if pod["metadata"]["name"].startswith("virt-launcher-vm-29-"):
            cluster.remove(PODS, f"default/{pod['metadata']['name']}")
    before = len(cluster.log)
    cluster.apply_vm("vm-29", cpu="0.01")
    await process.settle()
    assert "Pod was deleted" not in str(statuses(cluster, before, "vm-29"))
    assert (cluster.status("vm-29")["phase"], cluster.status("vm-29")["incarnation"]) == ("Running", 0)
