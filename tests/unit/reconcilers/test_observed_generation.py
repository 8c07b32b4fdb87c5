"""`status.observedGeneration`: the spec that a status was derived from."""

from __future__ import annotations

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process


@pytest.fixture
def cluster() -> Cluster:
    """One node, one VM."""
    found = Cluster()
    found.add_node()
    found.apply_vm()
    return found


def is_fresh(cluster: Cluster) -> bool:
    """Whether the status was derived from the newest spec."""
    return bool(cluster.status().get("observedGeneration") == cluster.vm()["metadata"]["generation"])


def is_ready(cluster: Cluster) -> bool:
    """Whether the status has Ready=True."""
    conditions = cluster.status().get("conditions", ())
    return any((it["type"], it["status"]) == ("Ready", "True") for it in conditions)


async def test_a_start_publishes_its_generation_without_a_further_write(cluster: Cluster) -> None:
    """In the write of the phase."""
    await Process(cluster).settle()
    assert is_fresh(cluster)
    assert cluster.writes == ["create pods", "patch virtualmachines"]


async def test_an_edit_that_changes_nothing_else_costs_one_write(cluster: Cluster) -> None:
    """Otherwise a client would wait for ever for a fresh status."""
    process = Process(cluster)
    await process.settle()
    before, status = len(cluster.writes), cluster.status()
    cluster.store(VIRTUAL_MACHINES.plural, {**cluster.vm(), "spec": {**cluster.vm()["spec"], "later": "field"}})
    assert not is_fresh(cluster)
    await process.settle()
    assert cluster.writes[before:] == ["patch virtualmachines"]
    assert cluster.status() == {**status, "observedGeneration": 2}


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_no_fresh_status_of_a_vm_that_is_stopping_is_ready(cluster: Cluster, *, acknowledged: bool) -> None:
    """`kubectl wait --for=condition=Ready` right after the stop would succeed."""
    process = Process(cluster)
    if acknowledged:
        await process.settle()
    else:
        await process.reconcile()
        cluster.run_pods()
    cluster.apply_vm(running=False)
    for _ in range(6):
        assert not (is_fresh(cluster) and is_ready(cluster))
        process.deliver()
        await process.step()
    cluster.finish_deletions()
    await process.settle()
    assert (cluster.status()["phase"], is_fresh(cluster)) == ("Stopped", True)


def generations(cluster: Cluster, name: str = "m-1") -> tuple[int | None, int]:
    """Return the generation that a migration's status was derived from, and the newest."""
    document = cluster.objects[MIGRATIONS.plural, f"default/{name}"]
    return document["status"].get("observedGeneration"), document["metadata"]["generation"]


def cancel(cluster: Cluster) -> None:
    """Set the only mutable field of a migration."""
    document = cluster.objects[MIGRATIONS.plural, "default/m-1"]
    cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})


async def test_every_status_of_a_migration_has_its_generation(cluster: Cluster) -> None:
    """From the first to the last."""
    process = Process(cluster)
    await process.settle()
    cluster.add_node("node-2")
    cluster.migrate()
    await process.settle()
    published = [document for plural, document, _ in cluster.log if plural == MIGRATIONS.plural][1:]
    assert [document["status"]["observedGeneration"] for document in published] == [1] * len(published)


async def test_an_edit_of_a_finished_migration_costs_one_write(cluster: Cluster) -> None:
    """Nothing else changes; a status of an older release is not touched."""
    process = Process(cluster)
    await process.settle()
    cluster.add_node("node-2")
    cluster.migrate()
    await process.settle()
    before, status = len(cluster.writes), cluster.migration()
    cancel(cluster)
    await process.settle()
    assert generations(cluster) == (2, 2)
    assert cluster.writes[before:] == ["patch virtualmachinemigrations"]
    assert cluster.migration() == {**status, "observedGeneration": 2}
    older = {key: value for key, value in cluster.migration().items() if key != "observedGeneration"}
    cluster.set_status(MIGRATIONS, "default/m-1", older)
    await process.settle()
    assert cluster.migration() == older
