"""`status.observedGeneration`: which spec a status was derived from."""

from __future__ import annotations

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process


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
    cluster.store(VIRTUAL_MACHINES.plural, {**cluster.vm(), "spec": {**cluster.vm()["spec"], "later": "field"}})
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


def told_of(cluster: Cluster, name: str = "m-1") -> tuple[int | None, int]:
    """The generation that a migration's status was derived from, and the newest."""
    document = cluster.objects[MIGRATIONS.plural, f"default/{name}"]
    return document["status"].get("observedGeneration"), document["metadata"]["generation"]


def cancel(cluster: Cluster) -> None:
    """Change the only field of a migration that may change."""
    document = cluster.objects[MIGRATIONS.plural, "default/m-1"]
    cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})


async def test_every_status_of_a_migration_tells_its_generation(cluster: Cluster) -> None:
    """From the first to the last, and a cancel is seen."""
    process = Process(cluster)
    await process.settle()
    cluster.add_node("node-2")
    cluster.migrate()
    await process.settle()
    told = [document for plural, document, _ in cluster.log if plural == MIGRATIONS.plural][1:]
    assert [document["status"]["observedGeneration"] for document in told] == [1] * len(told)


async def test_an_edit_of_a_migration_that_has_ended_is_one_write(cluster: Cluster) -> None:
    """Nothing else changes; a status of an older release is left alone."""
    process = Process(cluster)
    await process.settle()
    cluster.add_node("node-2")
    cluster.migrate()
    await process.settle()
    before, told = len(cluster.writes), cluster.migration()
    cancel(cluster)
    await process.settle()
    assert told_of(cluster) == (2, 2)
    assert cluster.writes[before:] == ["patch virtualmachinemigrations"]
    assert cluster.migration() == {**told, "observedGeneration": 2}
    older = {key: value for key, value in cluster.migration().items() if key != "observedGeneration"}
    cluster.set_status(MIGRATIONS, "default/m-1", older)
    await process.settle()
    assert cluster.migration() == older
