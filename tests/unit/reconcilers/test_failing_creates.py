"""A pod create that fails for another reason than a refusal: retried with backoff, reported when it repeats."""

from __future__ import annotations

import pytest

from controller.engine.workers import Result
from controller.kube import errors
from controller.reconcilers.vm.create_failures import PATIENCE
from tests.model.cluster import Cluster
from tests.model.faults import Fault
from tests.unit.reconcilers.harness import Process

DOWN = errors.ServerError(
    500, "InternalError", 'failed calling webhook "x.example": dial tcp 127.0.0.1:1: connect: connection refused'
)
BUSY = errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=1.0)
QUOTA_RACE = errors.ConflictError(409, "Conflict", "resourcequotas: the object has been modified")
NO_ANSWER = errors.TransportError("Cannot connect to host")


@pytest.fixture
def cluster() -> Cluster:
    """One node, one VM."""
    found = Cluster()
    found.add_node()
    found.apply_vm()
    return found


def fail(cluster: Cluster, error: BaseException, times: int) -> None:
    """Let so many creates of pods fail."""
    cluster.faults += [Fault("create", "pods", error, commit=False)] * times


async def try_once(process: Process) -> Result | errors.KubeError:
    """Let the watches catch up and reconcile."""
    process.deliver()
    return await process.reconcile()


def reported(cluster: Cluster) -> tuple[str, str] | None:
    """Return reason and message of Ready, if there is one."""
    conditions = cluster.status().get("conditions")
    return (conditions[0]["reason"], conditions[0]["message"]) if conditions else None


async def test_a_single_failure_is_not_reported(cluster: Cluster) -> None:
    """Most failures pass by themselves."""
    fail(cluster, DOWN, 1)
    process = Process(cluster)
    await process.settle()
    assert cluster.writes == ["create pods", "patch virtualmachines"]
    assert "FailedCreate" not in [event.reason for event in process.events]


@pytest.mark.parametrize(
    "error", [DOWN, errors.ServerError(503, "", "etcdserver: leader changed"), errors.StatusError(413, "", "large")]
)
async def test_the_second_failure_is_a_condition_and_an_event(cluster: Cluster, error: errors.StatusError) -> None:
    """With the server's message, once for any number of retries."""
    process = Process(cluster)
    fail(cluster, error, 6)
    for _ in range(7):
        await try_once(process)
    assert reported(cluster) == ("FailedCreate", error.message)
    assert cluster.writes == ["patch virtualmachines"]
    assert [event.reason for event in process.events] == ["FailedCreate"]


async def test_the_condition_is_removed_when_the_create_succeeds(cluster: Cluster) -> None:
    """Also during a burst, when statuses are pending."""
    for number in range(30):
        cluster.apply_vm(f"other-{number}")
    process = Process(cluster)
    fail(cluster, DOWN, 2)
    for _ in range(3):
        await try_once(process)
    assert reported(cluster) == ("FailedCreate", DOWN.message)
    for _ in range(2):
        await process.step()
        process.deliver()
    await process.step()
    assert reported(cluster) != ("FailedCreate", DOWN.message)


async def test_reporting_a_failure_does_not_restart_the_backoff(cluster: Cluster) -> None:
    """The next create counts as one more retry."""
    process = Process(cluster)
    fail(cluster, DOWN, 2)
    for _ in range(2):
        assert await try_once(process) is DOWN
    assert await try_once(process) == Result(retry=True)


async def test_messages_that_differ_in_digits_only_are_reported_once(cluster: Cluster) -> None:
    """Otherwise each retry would cost a write."""
    process = Process(cluster)
    for port in range(40000, 40006):
        fail(cluster, errors.ServerError(500, "InternalError", f"read tcp 10.0.0.1:{port}: reset"), 1)
    for _ in range(8):
        await try_once(process)
    assert cluster.writes.count("patch virtualmachines") == 1


@pytest.mark.parametrize("error", [BUSY, QUOTA_RACE])
async def test_a_request_to_retry_later_is_reported_when_it_lasts(cluster: Cluster, error: errors.StatusError) -> None:
    """Not within the first 10 s, since it is common in a burst."""
    process = Process(cluster)
    fail(cluster, error, 9)
    for _ in range(4):
        await try_once(process)
    assert reported(cluster) is None
    cluster.pass_time(PATIENCE)
    for _ in range(2):
        await try_once(process)
    assert reported(cluster) == ("FailedCreate", error.message)


async def test_an_api_server_that_does_not_answer_is_no_failure_of_a_create(cluster: Cluster) -> None:
    """After an outage no VM reports a failed create."""
    process = Process(cluster)
    fail(cluster, NO_ANSWER, 5)
    await process.settle()
    assert cluster.writes == ["create pods", "patch virtualmachines"]


async def test_the_failure_of_an_earlier_start_is_not_reported_for_the_next(cluster: Cluster) -> None:
    """The VM was stopped and started again."""
    process = Process(cluster)
    fail(cluster, errors.ForbiddenError(403, "Forbidden", "exceeded quota"), 3)
    for _ in range(3):
        await try_once(process)
    cluster.faults.clear()
    cluster.apply_vm(running=False)
    await process.settle()
    process.events.clear()
    before = len(cluster.writes)
    cluster.apply_vm(running=True)
    await process.settle()
    assert cluster.writes[before:] == ["create pods", "patch virtualmachines"]


async def test_the_state_of_failed_creates_is_dropped_once_the_pod_exists(cluster: Cluster) -> None:
    """Only a VM that waits for its pod takes memory for that."""
    process = Process(cluster)
    fail(cluster, errors.ForbiddenError(403, "Forbidden", "exceeded quota"), 1)
    await try_once(process)
    known = process.reconciler._memory["default/vm-1"]
    assert known.create_failures is not None
    assert known.create_failures.reported == "exceeded quota"
    await process.settle()
    assert known is process.reconciler._memory["default/vm-1"]
    assert known.create_failures is None
