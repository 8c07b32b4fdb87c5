"""`status.observedGeneration`: which spec a status was derived from."""

from __future__ import annotations

import pytest

from controller.kube.resources import VIRTUAL_MACHINES
from tests.unit.reconcilers.cluster import Cluster, Process


@pytest.fixture
def cluster() -> Cluster:
    """One node, one VM."""
    made = Cluster()
    made.add_node()
    made.apply_vm()
    return made


def is_fresh(cluster: Cluster) -> bool:
    """Whether the status was derived from the newest spec."""
    return bool(cluster.status().get("observedGeneration") == cluster.vm()["metadata"]["generation"])


def says_ready(cluster: Cluster) -> bool:
    """Whether the status says that the VM is up."""
    conditions = cluster.status().get("conditions", ())
    return any((it["type"], it["status"]) == ("Ready", "True") for it in conditions)


async def test_a_start_tells_its_generation_and_costs_no_write_for_it(cluster: Cluster) -> None:
    """The status that is written anyway carries it."""
    await Process(cluster).settle()
    assert is_fresh(cluster)
    assert cluster.writes == ["create pods", "patch virtualmachines"]


async def test_a_spec_that_changes_nothing_else_is_one_write(cluster: Cluster) -> None:
    """Whoever waits for the status to be fresh must not wait for ever."""
    process = Process(cluster)
    await process.settle()
    before, told = len(cluster.writes), cluster.status()
    cluster._store(VIRTUAL_MACHINES.plural, {**cluster.vm(), "spec": {**cluster.vm()["spec"], "later": "field"}})
    assert not is_fresh(cluster)
    await process.settle()
    assert cluster.writes[before:] == ["patch virtualmachines"]
    assert cluster.status() == {**told, "observedGeneration": 2}


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_no_fresh_status_says_that_a_vm_is_up_that_is_being_stopped(
    cluster: Cluster, *, acknowledged: bool
) -> None:
    """Otherwise `kubectl wait --for=condition=Ready`, asked right after the stop, would be told yes."""
    process = Process(cluster)
    if acknowledged:
        await process.settle()
    else:
        await process.reconcile()
        cluster.run_pods()
    cluster.apply_vm(running=False)
    for _ in range(6):
        assert not (is_fresh(cluster) and says_ready(cluster))
        process.deliver()
        await process.step()
    cluster.finish_deletions()
    await process.settle()
    assert (cluster.status()["phase"], is_fresh(cluster)) == ("Stopped", True)
