"""Every pair of interventions at every point of a migration: too many runs for a unit test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.resources import NODES, PODS
from tests.model.cluster import Cluster
from tests.unit.reconcilers.harness import Process


def _kill_target(cluster: Cluster) -> None:
    for pod in cluster.pods():
        cluster.remove(PODS, f"default/{pod['metadata']['name']}")


def _fail_pod(cluster: Cluster) -> None:
    for pod in cluster.pods():
        cluster.set_status(PODS, f"default/{pod['metadata']['name']}", {"phase": "Failed"})


def _drop(resource: Any, key: str) -> Callable[[Cluster], None]:
    def drop(cluster: Cluster) -> None:
        if (resource.plural, key) in cluster.objects:
            cluster.remove(resource, key)

    return drop


def _delete_with_finalizer(cluster: Cluster) -> None:
    if (VIRTUAL_MACHINES.plural, "default/vm-1") in cluster.objects:
        changes = {"deletionTimestamp": "2026-01-15T11:00:00Z", "finalizers": ["example.com/hold"]}
        cluster.edit(VIRTUAL_MACHINES, "default/vm-1", **changes)


def _change(running: bool) -> Callable[[Cluster], None]:  # noqa: FBT001 - named at the call
    def change(cluster: Cluster) -> None:
        if (VIRTUAL_MACHINES.plural, "default/vm-1") in cluster.objects:
            cluster.apply_vm(running=running)

    return change


def _cordon(cluster: Cluster) -> None:
    if (NODES.plural, "/node-2") in cluster.objects:
        cluster.cordon("node-2")


def _cancel(cluster: Cluster) -> None:
    key = (MIGRATIONS.plural, "default/m-1")
    if key in cluster.objects:
        document = cluster.objects[key]
        cluster.store(MIGRATIONS.plural, {**document, "spec": {**document["spec"], "cancel": True}})


def _second(cluster: Cluster) -> None:
    if (MIGRATIONS.plural, "default/m-2") not in cluster.objects:
        cluster.migrate("m-2")


INTERVENTIONS: dict[str, Callable[[Cluster], None]] = {
    "nothing": lambda _: None,
    "stop": _change(running=False),
    "start": _change(running=True),
    "delete VM": _drop(VIRTUAL_MACHINES, "default/vm-1"),
    "delete VM with a finalizer": _delete_with_finalizer,
    "delete pod": _kill_target,
    "fail pod": _fail_pod,
    "delete target node": _drop(NODES, "/node-2"),
    "delete source node": _drop(NODES, "/node-1"),
    "cordon target": _cordon,
    "cancel": _cancel,
    "delete migration": _drop(MIGRATIONS, "default/m-1"),
    "second migration": _second,
}
MAY_WAIT = {
    "Scheduling": "no node accepts its pod",
}
"""The only phase but Running in which a VM that should run may stay, and why."""


@pytest.mark.parametrize(("first", "second"), list(product(INTERVENTIONS, repeat=2)))
async def test_every_pair_of_interventions_at_every_point_ends_in_a_valid_state(first: str, second: str) -> None:
    """At most one pod, no claim left, and every migration finished."""
    for at in range(5):
        for later in (at, at + 1, at + 2):
            cluster = Cluster()
            cluster.add_node("node-1")
            cluster.apply_vm()
            process = Process(cluster)
            await process.settle()
            cluster.pass_time(3600)
            cluster.add_node("node-2")
            cluster.migrate(unschedulableTimeoutSeconds=20, completionTimeoutSeconds=60)
            for step in range(8):
                if step == at:
                    INTERVENTIONS[first](cluster)
                if step == later:
                    INTERVENTIONS[second](cluster)
                process.deliver()
                await process.step()
                if step % 2:
                    cluster.run_pods()
                    cluster.finish_deletions()
            await process.settle(rounds=900)
            judge(cluster, f"{first} at {at}, {second} at {later}")


def judge(cluster: Cluster, where: str) -> None:
    """Assert that a cluster at rest is in a valid state."""
    assert cluster.violations == [], where
    waits = (
        cluster.objects.get((VIRTUAL_MACHINES.plural, "default/vm-1"), {}).get("status", {}).get("phase") in MAY_WAIT
    )
    for (plural, _), document in cluster.objects.items():
        if plural == MIGRATIONS.plural:
            # The record of an eviction waits with its VM; any other migration finishes.
            is_record = "recordOf" in document["spec"] and waits and document["status"]["phase"] == "Scheduling"
            assert is_record or document["status"]["phase"] in ("Succeeded", "Failed"), where
    if (VIRTUAL_MACHINES.plural, "default/vm-1") not in cluster.objects:
        assert cluster.live() == [], where
        return
    vm = cluster.vm()
    assert "migration" not in vm["status"], where
    if not vm["spec"]["running"] or "deletionTimestamp" in vm["metadata"]:
        assert (vm["status"]["phase"], cluster.live()) == ("Stopped", []), where
        return
    (pod,) = cluster.live()
    if vm["status"]["phase"] in MAY_WAIT:
        assert cluster.choice(pod) is None, where
    else:
        assert vm["status"]["phase"] == "Running", where
