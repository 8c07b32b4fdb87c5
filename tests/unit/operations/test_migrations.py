"""Creating and following a migration, and its description in one line."""

from __future__ import annotations

import pytest

from controller.domain.objects import VirtualMachineMigration
from controller.domain.resources import MIGRATIONS
from controller.kube.errors import ForbiddenError, KubeError, MalformedReplyError, ServerError, TransportError
from controller.kube.meta import Condition
from controller.operations.errors import (
    CRDOutdatedError,
    MigrationFailedError,
    NoClusterError,
    NoControllerError,
    NoSuchVMError,
    RefusedError,
    TimedOutError,
)
from controller.operations.migrations import (
    MigrationRequest,
    Step,
    create,
    failure,
    follow,
    how_to_cancel,
    manifest,
    progress,
    success,
)
from controller.operations.waiting import UNNOTICED
from tests.model.staged import Staged, later, now
from tests.unit.cli.builders import migration


def test_the_name_begins_with_the_vms() -> None:
    """The API server makes it unique."""
    body = manifest(MigrationRequest(vm="vm-1", namespace="here"))
    assert body["metadata"] == {"generateName": "vm-1-", "namespace": "here"}


def test_a_name_of_ones_own_is_taken() -> None:
    """For a caller that may have to retry the create."""
    body = manifest(MigrationRequest(vm="vm-1", namespace="here", name="vm-1-bcdfg"))
    assert body["metadata"] == {"name": "vm-1-bcdfg", "namespace": "here"}


def test_only_what_was_said_is_in_the_spec() -> None:
    """Defaults are the schema's."""
    body = manifest(MigrationRequest(vm="vm-1", namespace="here"))
    assert body["spec"] == {"vmName": "vm-1"}


def test_every_field_of_a_request_is_in_the_spec() -> None:
    """Under the schema's names."""
    request = MigrationRequest(
        "v", "here", to="n2", reason="why", priority="user-triggered", strategy="Live", labels={"a": "b"}
    )
    body = manifest(request)
    said = {"targetNode": "n2", "reason": "why", "priority": "user-triggered", "strategy": "Live"}
    assert body["spec"] == {"vmName": "v", **said}
    assert body["metadata"]["labels"] == {"a": "b"}


def test_the_way_to_cancel_can_be_pasted() -> None:
    """Namespace, name, and JSON in quotes that a shell leaves alone."""
    command = """kubectl patch vmm -n here vm-1-abcde --type=merge -p '{"spec":{"cancel":true}}'"""
    assert how_to_cancel("here", "vm-1-abcde") == command


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Pending", "message": "No node\nhas room"}, "Pending: No node has room"),
        (
            {"phase": "Terminating", "source_pod": "virt-1", "source_node": "n1"},
            "Terminating: virt-1 terminates on n1",
        ),
        ({"phase": "Scheduling"}, "Scheduling: the target waits for a node"),
        ({"phase": "Scheduling", "target_pod": "virt-2"}, "Scheduling: virt-2 waits for a node"),
        ({"phase": "Starting", "target_pod": "virt-2", "target_node": "n2"}, "Starting: virt-2 starts on n2"),
        ({"phase": "Starting", "message": "Slowly"}, "Starting: Slowly"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_phase_says_what_happens(status: dict[str, str], words: str) -> None:
    """The controller's message, if there is one, knows best."""
    assert progress(migration(**status), 0) == words


def test_until_there_is_a_target_the_progress_says_on_what_its_room_depends() -> None:
    """Then the scheduler has the word."""
    note = Condition("RoomFound", "True", None, "ByPreemption", "Preflight found room on node n2 by preemption")
    words = [progress(migration(phase="Scheduling", target_pod=pod, conditions=(note,)), 0) for pod in (None, "virt-2")]
    assert words == [
        "Scheduling: the target waits for a node (Preflight found room on node n2 by preemption)",
        "Scheduling: virt-2 waits for a node",
    ]


def test_a_migration_that_no_controller_writes_about_asks_for_the_controller() -> None:
    """Most likely no controller runs."""
    assert "does `vmsim controller` run" in progress(migration(), UNNOTICED)


def test_a_migration_with_a_message_was_noticed() -> None:
    """It may wait for long, and for a good reason."""
    assert progress(migration(message="No room"), 2 * UNNOTICED) == "Pending: No room"


def test_success_says_from_where_to_where_and_for_how_long() -> None:
    """In one line."""
    moved = migration(phase="Succeeded", source_node="n1", target_node="n2", downtime_seconds="0.5")
    assert success(moved) == "vm-1: n1 → n2, downtime 0.5 s"


def test_a_failure_says_why_in_one_line() -> None:
    """In one word, then for a person."""
    assert failure(migration(phase="Failed", failure_reason="NoRoom", message="All\nfull")) == "NoRoom: All full"


# --- asking for one, and following it ------------------------------------------------------------------------


async def begun(cluster: Staged) -> VirtualMachineMigration:
    """Return a migration that was asked for a moment ago."""
    cluster.vm(phase="Running")
    return await create(cluster, MigrationRequest("vm-1", "default", reason="drill"))


async def test_nothing_is_asked_for_a_vm_that_is_not_there(cluster: Staged) -> None:
    """The error says where one might find it."""
    with pytest.raises(NoSuchVMError, match="there is no VM vm-1 in namespace default: see kubectl get vm -A"):
        await create(cluster, MigrationRequest("vm-1", "default"))
    assert cluster.names(MIGRATIONS) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ServerError(500, "InternalError", "etcdserver: request timed out"), RefusedError),
        (TransportError("POST /apis: connection reset by peer"), NoClusterError),
        (MalformedReplyError("a proxy's page"), NoClusterError),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_create_that_may_have_been_carried_out_is_said_to_be_so(
    cluster: Staged, error: KubeError, kind: type[Exception]
) -> None:
    """A retry without a read may move the VM twice."""
    cluster.vm(phase="Running")
    cluster.failures["create virtualmachinemigrations"] = error
    with pytest.raises(kind) as told:
        await create(cluster, MigrationRequest("vm-1", "default"))
    assert str(told.value).endswith(
        "whether the migration was created is not known: look at kubectl get vmm -n default before you ask again"
    )


async def test_a_strategy_that_the_cluster_does_not_know_is_refused(cluster: Staged) -> None:
    """It would be dropped, and the VM would move otherwise than asked for."""
    cluster.vm(phase="Running")
    cluster.unknown = frozenset({"strategy"})
    with pytest.raises(CRDOutdatedError, match=r"VirtualMachineMigration resource .* without spec\.strategy"):
        await create(cluster, MigrationRequest("vm-1", "default", strategy="Live"))
    assert cluster.names(MIGRATIONS) == []


@pytest.mark.parametrize(
    "error", [TransportError("no connection", sent=False), ForbiddenError(403, "Forbidden", "exceeded quota")]
)
async def test_a_create_that_was_not_carried_out_is_raised_as_it_is(cluster: Staged, error: KubeError) -> None:
    """There is nothing to look for."""
    cluster.vm(phase="Running")
    cluster.failures["create virtualmachinemigrations"] = error
    with pytest.raises(type(error)):
        await create(cluster, MigrationRequest("vm-1", "default"))


@pytest.mark.looptime
async def test_a_migration_is_followed_until_it_has_succeeded(cluster: Staged) -> None:
    """Its last state tells all."""
    created = await begun(cluster)
    later(1, cluster.migration, "vm-1-abcde", phase="Scheduling", message="no room yet")
    later(20, cluster.migration, "vm-1-abcde", phase="Succeeded", targetNode="n2")
    last = await follow(cluster, created, timeout=60)
    assert (now(), last.status.target_node) == (20, "n2")


@pytest.mark.looptime
async def test_a_migration_that_failed_says_why(cluster: Staged) -> None:
    """For a person, and in one word for a program."""
    created = await begun(cluster)
    later(1, cluster.migration, "vm-1-abcde", phase="Failed", failureReason="NoRoom", message="All\nfull")
    with pytest.raises(MigrationFailedError, match="vm-1 did not move: NoRoom: All full") as failed:
        await follow(cluster, created, timeout=60)
    assert failed.value.reason == "NoRoom"


@pytest.mark.looptime
async def test_a_migration_that_was_deleted_will_not_succeed(cluster: Staged) -> None:
    """There is nothing to wait for."""
    created = await begun(cluster)
    later(1, cluster.remove, MIGRATIONS, "default/vm-1-abcde")
    with pytest.raises(MigrationFailedError, match="migration vm-1-abcde was deleted"):
        await follow(cluster, created, timeout=60)
    assert now() == 1


@pytest.mark.looptime
async def test_a_migration_that_takes_too_long_goes_on(cluster: Staged) -> None:
    """The error says how to cancel it."""
    created = await begun(cluster)
    cluster.migration("vm-1-abcde", phase="Pending", message="No node has room")
    with pytest.raises(
        TimedOutError, match=r"after 30 s the migration is Pending: No node .* kubectl patch vmm -n default"
    ):
        await follow(cluster, created, timeout=30)
    assert now() == 30


@pytest.mark.looptime
async def test_a_migration_that_no_controller_takes_up_is_an_error_without_tell(cluster: Staged) -> None:
    """After ten seconds."""
    created = await begun(cluster)
    with pytest.raises(NoControllerError, match="no controller has taken it up"):
        await follow(cluster, created, timeout=60)
    assert now() == UNNOTICED


@pytest.mark.looptime
async def test_tell_gets_each_change_once_and_no_error_ends_the_wait(cluster: Staged) -> None:
    """One of the lines says that no controller has taken it up."""
    created = await begun(cluster)
    later(15, cluster.migration, "vm-1-abcde", phase="Starting", message="Slowly")
    later(25, cluster.migration, "vm-1-abcde", phase="Succeeded")
    heard: list[Step] = []
    await follow(cluster, created, timeout=None, report=heard.append)
    assert [step.line.partition(";")[0] for step in heard] == [
        "Pending",
        "Pending: no controller has taken it up",
        "Starting: Slowly",
    ]
