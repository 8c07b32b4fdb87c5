"""A drain whose requests get no answer, a late one, or a refusal: every VM moves once, and nothing ends too early."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import pytest
from rich.console import Console

from controller.cli.drain import drained
from controller.domain.resources import MIGRATIONS
from controller.kube.errors import (
    ConflictError,
    ForbiddenError,
    KubeError,
    ServerError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
)
from controller.kube.resources import NODES, PODS, Resource
from controller.operations.draining.order import Order
from controller.operations.errors import SimulatorError
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.model.staged import Staged, later, now

T = TypeVar("T")

TIMED_OUT = ServerError(500, "InternalError", "etcdserver: request timed out")
LOST = TransportError("POST /apis: connection reset by peer")
EXPIRED = UnauthorizedError(401, "Unauthorized", "Unauthorized")
BUSY = TooManyRequestsError(429, "TooManyRequests", "too many requests", retry_after=5.0)
UNKNOWN = pytest.mark.parametrize("error", [TIMED_OUT, LOST], ids=lambda error: type(error).__name__)
CONFLICT = ConflictError(409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q"')
PASSING = pytest.mark.parametrize(
    "error", [TIMED_OUT, LOST, EXPIRED, BUSY, CONFLICT], ids=lambda error: type(error).__name__
)
REFUSAL = ForbiddenError(403, "Forbidden", "exceeded quota: one-move")


@dataclass
class Unreliable(Staged):
    """A cluster that answers some creates with an error, and in which a migration moves its VM."""

    errors: dict[str, list[KubeError]] = field(default_factory=dict)
    """By VM: the errors of the next creates."""
    commits: bool = False
    """Whether the creates with an error are committed all the same."""
    asked: list[tuple[float, str]] = field(default_factory=list)
    """The creates: when each was sent, and of which VM."""
    seconds: float = 5.0
    """Seconds that a move takes."""

    def place(self, name: str, node: str) -> None:
        """Let a VM run on a node."""
        self.vm(name, phase="Running", nodeName=node)
        self.pod(f"pod-{name}", name, node=node, phase="Running")

    def moves(self, vm: str) -> list[Document]:
        """Return the migrations of a VM."""
        return [item for item in self.of(MIGRATIONS) if item["spec"]["vmName"] == vm]

    async def create(self, resource: Resource[T], body: Mapping[str, Any], **options: Any) -> T:
        """Create a migration, or fail as `errors` and `commits` say."""
        vm = body["spec"]["vmName"]
        self.asked.append((now(), vm))
        if errors := self.errors.get(vm):
            name = body["metadata"]["name"]
            self.faults.append(Fault("create", resource.plural, errors.pop(0), commit=self.commits, name=name))
        return await super().create(resource, body, **options)

    async def merge_patch(self, resource: Resource[T], name: str, body: Mapping[str, Any], **options: Any) -> T:
        """Cordon the node."""
        assert (resource.plural, body) == (NODES.plural, {"spec": {"unschedulable": True}})
        assert options == {}
        return await super().merge_patch(resource, name, body)

    def _written(self, method: str, plural: str, document: Document) -> None:
        super()._written(method, plural, document)
        if method == "create":
            later(1, self._begin, document["spec"]["vmName"])
            later(self.seconds, self._land, document["spec"]["vmName"])

    def _begin(self, vm: str) -> None:
        self._change(vm, phase="Terminating", sourceNode="n1")
        self.vm(vm, phase="Scheduling")
        self.remove(PODS, f"default/pod-{vm}")

    def _land(self, vm: str) -> None:
        self.place(vm, "n2")
        self._change(vm, phase="Succeeded", sourceNode="n1", targetNode="n2")

    def _change(self, vm: str, **status: str) -> None:
        (document,) = self.moves(vm)
        self.migration(document["metadata"]["name"], **status)


@pytest.fixture
def unreliable(cluster: Staged) -> Unreliable:
    """Return a cluster with three VMs on n1."""
    assert not cluster.log  # it keeps the log out of the output
    found = Unreliable()
    found.put(NODES.plural, "/n1", spec={})
    for name in ("a", "b", "c"):
        found.place(name, "n1")
    return found


async def drain(cluster: Unreliable, *, timeout: float | None = None) -> str:  # noqa: ASYNC109 - the drain's own
    """Drain n1; return the output."""
    file = io.StringIO()
    console = Console(file=file, width=1000, markup=False, highlight=False, soft_wrap=True)
    try:
        await drained(cluster, Order(("n1",), timeout=timeout), console, Random(1))  # noqa: S311 - reproducible
    except SimulatorError as error:
        file.write(f"error: {error}\n")
    return file.getvalue()


def all_moved(text: str) -> bool:
    """Whether all three VMs have moved."""
    return text.endswith("n1 is drained; 3 VMs moved\n")


@PASSING
@pytest.mark.looptime
async def test_a_create_without_an_answer_is_retried_when_it_did_not_commit(
    unreliable: Unreliable, error: KubeError
) -> None:
    """It is no refusal; the other VMs do not wait for it."""
    unreliable.errors = {"a": [error, error]}
    text = await drain(unreliable)
    assert all_moved(text)
    assert [len(unreliable.moves(vm)) for vm in "abc"] == [1, 1, 1]


@UNKNOWN
@pytest.mark.looptime
async def test_a_migration_that_was_created_without_an_answer_is_adopted(
    unreliable: Unreliable, error: KubeError
) -> None:
    """The drain waits for it, although its VM moves by then, and creates no other."""
    unreliable.errors = {"b": [error]}
    unreliable.commits = True
    unreliable.failures["get virtualmachinemigrations"] = AssertionError("the watch shows it")
    text = await drain(unreliable)
    assert all_moved(text)
    assert [len(unreliable.moves(vm)) for vm in "abc"] == [1, 1, 1]
    assert text.count("default/b: migration ") == 1


@pytest.mark.parametrize("lag", [3, 30])
@UNKNOWN
@pytest.mark.looptime
async def test_a_lagging_watch_causes_no_second_migration(unreliable: Unreliable, error: KubeError, lag: float) -> None:
    """The drain reads the migration by its name, whether the VM has moved or not."""
    unreliable.errors = {"a": [error, error], "b": [error]}
    unreliable.commits = True
    unreliable.watches.lag[MIGRATIONS.plural] = lag
    unreliable.seconds = 8
    text = await drain(unreliable)
    assert all_moved(text)
    assert [len(unreliable.moves(vm)) for vm in "abc"] == [1, 1, 1]


@PASSING
@pytest.mark.looptime
async def test_a_create_without_an_answer_is_reported_once(unreliable: Unreliable, error: KubeError) -> None:
    """At once, with the server's message, however many retries follow."""
    unreliable.errors = {"a": [error] * 5}
    text = await drain(unreliable)
    (line,) = [line for line in text.splitlines() if "not confirmed" in line and line.startswith("default/a")]
    assert str(error).split(" (")[0] in line


@PASSING
@pytest.mark.looptime
async def test_a_vm_that_never_gets_an_answer_does_not_stop_the_others(
    unreliable: Unreliable, error: KubeError
) -> None:
    """Their creates are sent first, and its retries back off."""
    unreliable.errors = {"a": [error] * 1000}
    text = await drain(unreliable, timeout=60)
    assert text.endswith("error: after 60 s 1 VM not done: default/a\n")
    assert [len(unreliable.moves(vm)) for vm in "abc"] == [0, 1, 1]
    assert len(unreliable.asked) < 12


@pytest.mark.looptime
async def test_the_timeout_ends_a_longer_retry_after(unreliable: Unreliable) -> None:
    """A drain ends on time, for any pause that the API server asks for."""
    unreliable.errors = {"a": [TooManyRequestsError(429, "TooManyRequests", "later", retry_after=300.0)] * 9}
    began = now()
    assert "error: after 5 s 3 VMs not done: " in await drain(unreliable, timeout=5)
    assert now() - began == 5


@pytest.mark.looptime
async def test_a_drain_respects_retry_after(unreliable: Unreliable) -> None:
    """No other VM's create is sent during the pause."""
    unreliable.errors = {"a": [BUSY]}
    began = now()
    assert all_moved(await drain(unreliable))
    assert [vm for at, vm in unreliable.asked if at < began + 5] == ["a"]


@pytest.mark.looptime
async def test_a_drain_ends_when_a_vm_stops_without_its_migration(unreliable: Unreliable) -> None:
    """As soon as a late create can no longer commit."""
    unreliable.errors = {"a": [TIMED_OUT] * 9}
    later(0.5, unreliable.vm, "a", running=False, phase="Stopped")
    later(0.5, unreliable.remove, PODS, "default/pod-a")
    began = now()
    text = await drain(unreliable)
    assert text.endswith("n1 is drained; 2 VMs moved\n")
    assert 10 <= now() - began <= 25
    assert unreliable.moves("a") == []


@pytest.mark.looptime
async def test_a_refusal_is_final_and_reported_at_the_end(unreliable: Unreliable) -> None:
    """Its create is sent once."""
    unreliable.errors = {"b": [REFUSAL]}
    lines = (await drain(unreliable)).splitlines()
    assert lines[-2:] == ["default/b: refused: exceeded quota: one-move", "error: 1 of 3 VMs did not move"]
    assert [vm for _, vm in unreliable.asked].count("b") == 1


@pytest.mark.looptime
async def test_a_refused_vm_that_another_client_moves_is_no_failure(unreliable: Unreliable) -> None:
    """It is no longer on the node."""
    unreliable.errors = {"b": [REFUSAL]}
    later(2, unreliable.put, MIGRATIONS.plural, "default/theirs", spec={"vmName": "b"}, status={"phase": "Pending"})
    later(20, unreliable._begin, "b")
    later(25, unreliable._land, "b")
    assert (await drain(unreliable)).endswith("n1 is drained; 2 VMs moved\n")
    assert now() >= 20


@pytest.mark.looptime
async def test_ctrl_c_during_a_create_prints_how_to_cancel_the_migrations(
    unreliable: Unreliable, capsys: pytest.CaptureFixture[str]
) -> None:
    """The create may have been committed."""
    unreliable.errors = {vm: [LOST] * 9 for vm in "abc"}
    task = asyncio.create_task(drain(unreliable))
    later(1, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "kubectl delete vmm -A -l simulation.node-classifier.io/drain=n1" in capsys.readouterr().err


@UNKNOWN
@pytest.mark.looptime
async def test_a_cordon_without_an_answer_is_reported_as_possible(unreliable: Unreliable, error: KubeError) -> None:
    """With how to undo it; no VM moves."""
    unreliable.failures["patch nodes"] = error
    text = await drain(unreliable)
    assert text.startswith("error: ")
    assert text.endswith("; n1 may be cordoned all the same: drain it again, or kubectl uncordon n1\n")
    assert not unreliable.asked


@pytest.mark.looptime
async def test_ctrl_c_during_the_cordon_reports_it_as_possible(
    unreliable: Unreliable, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request may have been carried out."""
    unreliable.failures["patch nodes"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await drain(unreliable)
    assert "n1 may be cordoned: drain it again, or kubectl uncordon n1\n" in capsys.readouterr().err
