"""Launcher pods without a VM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.domain import names
from controller.domain.objects import VMSpec
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import placement
from controller.domain.vm.placement import Placement
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.resources import PODS
from controller.operations import bare
from controller.operations.errors import (
    MigrationFailedError,
    NoSuchVMError,
    TimedOutError,
    UnschedulableError,
    VMExistsError,
)
from controller.operations.vms import VMRequest
from tests.model.staged import Staged, later, now

POLICY = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="1Ti"), node_selector={"zone": "a"})
REQUEST = VMRequest("vm-1", "default", cpu="0.1", memory="0.25")
NEXT = bare.manifest(REQUEST, "second", POLICY)["metadata"]["name"]
"""The name of the pod with the second run ID."""


def run(cluster: Staged, name: str = "virt-1", node: str = "n1") -> None:
    """Let a bare pod run."""
    cluster.pod(name, owned=False, node=node, phase="Running")


async def moving(cluster: Staged, *, to: str | None = None, within: float = 60) -> bare.Move:
    """Move the pod of vm-1."""
    return await bare.migrate(cluster, REQUEST, POLICY, run_id="second", to=to, timeout=within)


# --- the pod -------------------------------------------------------------------------------------------------


def test_nothing_claims_that_a_vm_owns_it() -> None:
    """Else the controller would take it for a lost one."""
    metadata = bare.manifest(REQUEST, "first", POLICY)["metadata"]
    assert "ownerReferences" not in metadata
    assert names.INCARNATION not in metadata["annotations"]
    assert names.KUBEVIRT_CREATED_BY not in metadata["labels"]


def test_everything_else_is_a_launchers() -> None:
    """Selectors for launcher pods match it."""
    body = bare.manifest(
        VMRequest("vm-1", "default", cpu="0.1", memory="0.25", cpu_consumption="0.05"), "first", POLICY
    )
    metadata = body["metadata"]
    assert metadata["name"].startswith("virt-launcher-vm-1-")
    assert metadata["labels"] == {
        names.VM_LABEL: "vm-1",
        names.KUBEVIRT_APP_LABEL: names.KUBEVIRT_APP,
        names.KUBEVIRT_VM_NAME: "vm-1",
    }
    assert (metadata["annotations"][names.CPU_CONSUMPTION], metadata["annotations"][names.REQUESTED_CPU]) == (
        "0.05",
        "0.1",
    )


def test_its_size_and_its_nodes_are_the_policys() -> None:
    """As those of a launcher pod are."""
    spec = bare.manifest(REQUEST, "first", POLICY)["spec"]
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": "6400m", "memory": str(256 * 1024**3)}
    assert spec["nodeSelector"] == {"zone": "a"}


def test_each_run_id_makes_another_pod_name() -> None:
    """The old pod may still exist."""
    assert bare.manifest(REQUEST, "first", POLICY)["metadata"]["name"] != NEXT


# --- create, place, delete -----------------------------------------------------------------------------------


async def test_a_vm_has_one_bare_pod(cluster: Staged) -> None:
    """The second is refused, and says which is there."""
    run(cluster)
    with pytest.raises(VMExistsError, match="vm-1 has a pod already, virt-1: delete it first"):
        await bare.create(cluster, REQUEST, POLICY, run_id="second")
    assert cluster.names(PODS) == ["virt-1"]


async def test_a_pod_that_has_ended_is_none(cluster: Staged) -> None:
    """It holds nothing any more."""
    cluster.pod("virt-1", owned=False, phase="Succeeded")
    await bare.create(cluster, REQUEST, POLICY, run_id="second")
    assert cluster.names(PODS) == ["virt-1", NEXT]


async def test_the_pod_of_a_vm_is_left_alone(cluster: Staged) -> None:
    """It is the controller's."""
    cluster.vm()
    cluster.pod("virt-1")
    with pytest.raises(NoSuchVMError, match="vm-1 has no pod of its own in namespace default: create one first"):
        await bare.delete(cluster, "default", "vm-1", timeout=60)
    assert cluster.names(PODS) == ["virt-1"]


@pytest.mark.looptime
async def test_a_delete_waits_until_the_pod_is_gone(cluster: Staged) -> None:
    """It terminates first."""
    run(cluster)
    later(3, cluster.remove, PODS, "default/virt-1")
    await bare.delete(cluster, "default", "vm-1", timeout=60)
    assert now() == 3


@pytest.mark.looptime
async def test_a_pod_that_does_not_go_is_an_error(cluster: Staged) -> None:
    """When the time is over."""
    run(cluster)
    with pytest.raises(TimedOutError, match="after 5 s virt-1 is still being deleted"):
        await bare.delete(cluster, "default", "vm-1", timeout=5)


@pytest.mark.looptime
async def test_a_place_is_where_the_pod_runs(cluster: Staged) -> None:
    """As soon as it does."""
    cluster.pod("virt-1", owned=False)
    later(2, run, cluster)
    assert (await bare.place(cluster, "default", "vm-1", timeout=60)).spec.node_name == "n1"
    assert now() == 2


@pytest.mark.looptime
async def test_a_pod_that_finds_no_node_has_no_place(cluster: Staged) -> None:
    """That is an answer, too."""
    cluster.pod("virt-1", owned=False, waits="0/3 nodes")
    assert (await bare.place(cluster, "default", "vm-1", timeout=60)).spec.node_name is None
    assert now() == 0


# --- move ----------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_the_second_pod_is_made_once_the_first_is_gone(cluster: Staged) -> None:
    """Never two of them; the downtime is all of the time without."""
    run(cluster)
    later(1.5, lambda: there.extend(cluster.names(PODS)))
    later(2, cluster.remove, PODS, "default/virt-1")
    later(5, run, cluster, NEXT, "n2")
    there: list[str] = []
    move = await moving(cluster)
    assert there == ["virt-1"]
    assert cluster.names(PODS) == [NEXT]
    assert (move.source.spec.node_name, move.target.spec.node_name, move.downtime) == ("n1", "n2", 5)


def fields(cluster: Staged) -> Any:
    """Return what the second pod asks of its node."""
    [document] = [found for (_, key), found in cluster.objects.items() if key == f"default/{NEXT}"]
    return document["spec"].get("affinity")


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("to", "asked"),
    [(None, Placement(avoid="n1")), ("n2", Placement(node="n2", avoid="n1")), ("n1", Placement(node="n1"))],
    ids=["elsewhere", "there", "back"],
)
async def test_the_second_pod_goes_elsewhere_unless_told(cluster: Staged, to: str | None, asked: Placement) -> None:
    """As a migration's target does."""
    run(cluster)
    later(1, cluster.remove, PODS, "default/virt-1")
    task = asyncio.create_task(moving(cluster, to=to))
    await asyncio.sleep(2)
    assert fields(cluster) == placement.fields(VMSpec(), LauncherPolicy(), asked)["affinity"]
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.looptime
async def test_a_target_without_a_node_quotes_the_scheduler(cluster: Staged) -> None:
    """The target stays: nothing is rolled back."""
    run(cluster)
    later(1, cluster.remove, PODS, "default/virt-1")
    later(2, cluster.pod, NEXT, owned=False, waits="0/3 nodes")
    with pytest.raises(UnschedulableError, match=f"{NEXT} does not run yet: 0/3 nodes"):
        await moving(cluster, within=30)
    assert now() == 30
    assert cluster.names(PODS) == [NEXT]


@pytest.mark.looptime
async def test_a_target_that_is_lost_is_a_failure(cluster: Staged) -> None:
    """No other target is created."""
    run(cluster)
    later(1, cluster.remove, PODS, "default/virt-1")
    later(2, cluster.remove, PODS, f"default/{NEXT}")
    with pytest.raises(MigrationFailedError, match=f"target pod {NEXT} was lost") as failed:
        await moving(cluster)
    assert (now(), failed.value.reason) == (2, "TargetLost")


@pytest.mark.looptime
async def test_only_a_running_pod_moves(cluster: Staged) -> None:
    """A pod that waits for a node is not deleted for nothing."""
    cluster.pod("virt-1", owned=False)
    with pytest.raises(MigrationFailedError, match="pod virt-1 is Pending, and only a running one moves"):
        await moving(cluster)
    assert cluster.names(PODS) == ["virt-1"]
