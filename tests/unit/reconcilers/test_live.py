"""Live migrations on the model of the API server: two pods and one VM."""

from __future__ import annotations

from controller.domain.resources import VIRTUAL_MACHINES
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import running


async def test_a_live_migration_moves_its_vm_without_a_phase_but_running(cluster: Cluster) -> None:
    """The target is the next number, on the other node; nothing of the move is left."""
    process = await running(cluster)
    source, before = cluster.status()["podName"], len(cluster.log)
    cluster.migrate(strategy="Live")
    await process.settle()
    vm, move = cluster.status(), cluster.migration()
    assert (vm["phase"], vm["nodeName"], vm["incarnation"]) == ("Running", "node-2", 1)
    assert "migration" not in vm
    assert (move["phase"], move["sourceNode"], move["targetNode"]) == ("Succeeded", "node-1", "node-2")
    assert (move["sourcePod"], move["targetPod"]) == (source, vm["podName"])
    assert cluster.violations == []
    phases = {
        document["status"]["phase"] for plural, document, _ in cluster.log[before:] if plural == VIRTUAL_MACHINES.plural
    }
    assert phases == {"Running"}
    assert len(cluster.live()) == 1
