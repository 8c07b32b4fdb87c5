"""Cancelling a VM's migrations: which are asked to end, and what is said about the others."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.resources import MIGRATIONS
from controller.operations.cancelling import of_vm
from controller.operations.errors import HandedOverError, NoSuchVMError, NotMigratingError, TimedOutError
from tests.model.staged import Staged, later, now


@pytest.fixture
def cluster() -> Staged:
    """Return a cluster with a VM that runs."""
    made = Staged()
    made.vm(phase="Running", nodeName="n1", incarnation=3)
    return made


def begin(cluster: Staged, name: str, *, vm: str = "vm-1", spec: dict[str, Any] | None = None, **status: Any) -> str:
    """Let a migration of the VM be there; return its UID."""
    cluster.put(
        MIGRATIONS.plural,
        f"default/{name}",
        spec={"vmName": vm, **(spec or {})},
        status={"phase": "Pending", **status},
    )
    return str(cluster.objects[MIGRATIONS.plural, f"default/{name}"]["metadata"]["uid"])


def cancelled(cluster: Staged) -> set[str]:
    """Return the migrations that are asked to cancel."""
    return {item["metadata"]["name"] for item in cluster.of(MIGRATIONS) if item["spec"].get("cancel")}


@pytest.mark.looptime
async def test_what_has_not_ended_of_this_vm_is_cancelled(cluster: Staged) -> None:
    """Not another VM's, what has ended, or the record of an eviction."""
    for name in ("runs", "waits"):
        begin(cluster, name)
        later(2, cluster.migration, name, phase="Failed", failureReason="Cancelled")
    begin(cluster, "other", vm="vm-2")
    begin(cluster, "over", phase="Succeeded")
    begin(cluster, "record", spec={"recordOf": "Eviction"})
    ended = await of_vm(cluster, "default", "vm-1")
    assert ([migration.metadata.name for migration in ended], now()) == (["runs", "waits"], 2)
    assert cancelled(cluster) == {"runs", "waits"}


@pytest.mark.looptime
async def test_a_migration_that_fails_otherwise_meanwhile_is_told_as_it_failed(cluster: Staged) -> None:
    """The VM does not move, which was wanted."""
    begin(cluster, "runs")
    later(1, cluster.migration, "runs", phase="Failed", failureReason="TargetLost")
    [ended] = await of_vm(cluster, "default", "vm-1")
    assert ended.status.failure_reason == "TargetLost"


@pytest.mark.looptime
async def test_a_vm_without_a_migration_in_progress_is_an_error(cluster: Staged) -> None:
    """It names what lists those there were."""
    begin(cluster, "over", phase="Failed")
    with pytest.raises(
        NotMigratingError, match="VM vm-1 has no migration in progress: see vmsim migrations -n default"
    ):
        await of_vm(cluster, "default", "vm-1")


@pytest.mark.looptime
async def test_a_vm_that_is_not_there_is_an_error(cluster: Staged) -> None:
    """As of every command."""
    with pytest.raises(NoSuchVMError, match="there is no VM vm-9"):
        await of_vm(cluster, "default", "vm-9")


def told(uid: str) -> dict[str, Any]:
    """The VM's status after the hand-over and the claim's end."""
    return {"lastHandOver": {"uid": uid}}


def claimed(uid: str) -> dict[str, Any]:
    """The VM's status between the hand-over and the claim's end."""
    return {"incarnation": 5, "migration": {"uid": uid, "strategy": "Live", "targetIncarnation": 5}}


@pytest.mark.looptime
@pytest.mark.parametrize("status", [told, claimed])
async def test_a_vm_that_was_handed_over_is_told_so(cluster: Staged, status: Any) -> None:
    """Nothing is written: it would change nothing."""
    uid = begin(cluster, "runs", phase="Running")
    cluster.vm(phase="Running", nodeName="n2", **status(uid))
    with pytest.raises(HandedOverError, match="migration runs has handed VM vm-1 over to n2 already: cancelling it"):
        await of_vm(cluster, "default", "vm-1")
    assert cancelled(cluster) == set()


@pytest.mark.looptime
async def test_a_live_move_before_its_hand_over_is_cancelled(cluster: Staged) -> None:
    """Its claim names a number that is not yet the VM's."""
    uid = begin(cluster, "runs", phase="Running")
    claim = {"uid": uid, "strategy": "Live", "targetIncarnation": 4}
    cluster.vm(phase="Running", nodeName="n1", incarnation=3, migration=claim)
    later(1, cluster.migration, "runs", phase="Failed", failureReason="Cancelled")
    assert len(await of_vm(cluster, "default", "vm-1")) == 1


@pytest.mark.looptime
async def test_a_hand_over_that_was_faster_is_told(cluster: Staged) -> None:
    """The request came too late."""
    begin(cluster, "runs", phase="Running")
    later(1, cluster.migration, "runs", phase="Succeeded", sourceNode="n1", targetNode="n2")
    with pytest.raises(HandedOverError, match="runs could not be cancelled any more: it has moved vm-1: n1 → n2"):
        await of_vm(cluster, "default", "vm-1")


@pytest.mark.looptime
async def test_a_migration_that_is_deleted_meanwhile_is_left_out(cluster: Staged) -> None:
    """Deleting it does the same."""
    begin(cluster, "runs")
    later(1, cluster.remove, MIGRATIONS, "default/runs")
    assert await of_vm(cluster, "default", "vm-1") == ()


@pytest.mark.looptime
async def test_a_migration_that_no_controller_ends_is_told_after_ten_seconds(cluster: Staged) -> None:
    """It is asked to cancel, and will be."""
    begin(cluster, "runs")
    with pytest.raises(
        TimedOutError, match=r"after 10 s migration runs is Pending: no controller .* is cancelled as soon"
    ):
        await of_vm(cluster, "default", "vm-1")
    assert (now(), cancelled(cluster)) == (10, {"runs"})
