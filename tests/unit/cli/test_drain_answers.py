"""A drain whose questions get no answer, a late one, or a refusal: every VM moves once, and nothing ends too early."""

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
from controller.operations.draining.drain import Order
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
class Clouded(Staged):
    """A cluster that carries out some creates without saying so, and in which what was created moves its VM."""

    errors: dict[str, list[KubeError]] = field(default_factory=dict)
    """By VM: what is said to the next creates."""
    carries_out: bool = False
    """Whether these are carried out all the same."""
    asked: list[tuple[float, str]] = field(default_factory=list)
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
        """Create or not, answer or not."""
        vm = body["spec"]["vmName"]
        self.asked.append((now(), vm))
        if errors := self.errors.get(vm):
            name = body["metadata"]["name"]
            self.faults.append(Fault("create", resource.plural, errors.pop(0), commit=self.carries_out, name=name))
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
def clouded(cluster: Staged) -> Clouded:
    """Return a cluster with three VMs on n1."""
    assert not cluster.log  # it keeps the log out of the output
    found = Clouded()
    found.put(NODES.plural, "/n1", spec={})
    for name in ("a", "b", "c"):
        found.place(name, "n1")
    return found


async def drain(cluster: Clouded, *, timeout: float | None = None) -> str:  # noqa: ASYNC109 - the drain's own
    """Drain n1; return what is printed."""
    file = io.StringIO()
    console = Console(file=file, width=1000, markup=False, highlight=False, soft_wrap=True)
    try:
        await drained(cluster, Order(("n1",), timeout=timeout), console, Random(1))  # noqa: S311 - reproducible
    except SimulatorError as error:
        file.write(f"error: {error}\n")
    return file.getvalue()


def ends_well(text: str) -> bool:
    """Whether all three VMs have moved."""
    return text.endswith("n1 is drained; 3 VMs moved\n")


@PASSING
@pytest.mark.looptime
async def test_what_was_not_answered_and_not_carried_out_is_asked_again(clouded: Clouded, error: KubeError) -> None:
    """It is no refusal; the others need not wait for it."""
    clouded.errors = {"a": [error, error]}
    text = await drain(clouded)
    assert ends_well(text)
    assert [len(clouded.moves(vm)) for vm in "abc"] == [1, 1, 1]


@UNKNOWN
@pytest.mark.looptime
async def test_what_was_carried_out_without_an_answer_is_ours(clouded: Clouded, error: KubeError) -> None:
    """Although its VM is on its way by the time one looks again: the drain waits for it, and makes no other."""
    clouded.errors = {"b": [error]}
    clouded.carries_out = True
    clouded.failures["get virtualmachinemigrations"] = AssertionError("the watch has told it")
    text = await drain(clouded)
    assert ends_well(text)
    assert [len(clouded.moves(vm)) for vm in "abc"] == [1, 1, 1]
    assert text.count("default/b: migration ") == 1


@pytest.mark.parametrize("lag", [3, 30])
@UNKNOWN
@pytest.mark.looptime
async def test_a_late_watch_makes_no_second_migration(clouded: Clouded, error: KubeError, lag: float) -> None:
    """The VM still stands there, or has left, and no migration is seen: the API server is asked for it by its name."""
    clouded.errors = {"a": [error, error], "b": [error]}
    clouded.carries_out = True
    clouded.watches.lag[MIGRATIONS.plural] = lag
    clouded.seconds = 8
    text = await drain(clouded)
    assert ends_well(text)
    assert [len(clouded.moves(vm)) for vm in "abc"] == [1, 1, 1]


@PASSING
@pytest.mark.looptime
async def test_no_answer_is_told_once_with_the_servers_words(clouded: Clouded, error: KubeError) -> None:
    """At once, however often it is asked again."""
    clouded.errors = {"a": [error] * 5}
    text = await drain(clouded)
    (line,) = [line for line in text.splitlines() if "not confirmed" in line and line.startswith("default/a")]
    assert str(error).split(" (")[0] in line


@PASSING
@pytest.mark.looptime
async def test_a_vm_that_never_gets_an_answer_keeps_no_other_from_moving(clouded: Clouded, error: KubeError) -> None:
    """The others are asked for first, and it is not asked for all the time."""
    clouded.errors = {"a": [error] * 1000}
    text = await drain(clouded, timeout=60)
    assert text.endswith("error: after 60 s 1 VM not done: default/a\n")
    assert [len(clouded.moves(vm)) for vm in "abc"] == [0, 1, 1]
    assert len(clouded.asked) < 12


@pytest.mark.looptime
async def test_the_time_is_over_when_it_is_over(clouded: Clouded) -> None:
    """Whatever pause the API server asks for."""
    clouded.errors = {"a": [TooManyRequestsError(429, "TooManyRequests", "later", retry_after=300.0)] * 9}
    began = now()
    assert "error: after 5 s 3 VMs not done: " in await drain(clouded, timeout=5)
    assert now() - began == 5


@pytest.mark.looptime
async def test_a_pause_that_the_server_asks_for_is_made(clouded: Clouded) -> None:
    """By everybody who was not heard."""
    clouded.errors = {"a": [BUSY]}
    began = now()
    assert ends_well(await drain(clouded))
    assert [vm for at, vm in clouded.asked if at < began + 5] == ["a"]


@pytest.mark.looptime
async def test_a_vm_that_leaves_without_the_migration_ends_the_drain(clouded: Clouded) -> None:
    """As soon as no late request can bring the migration any more."""
    clouded.errors = {"a": [TIMED_OUT] * 9}
    later(0.5, clouded.vm, "a", running=False, phase="Stopped")
    later(0.5, clouded.remove, PODS, "default/pod-a")
    began = now()
    text = await drain(clouded)
    assert text.endswith("n1 is drained; 2 VMs moved\n")
    assert 10 <= now() - began <= 25
    assert clouded.moves("a") == []


@pytest.mark.looptime
async def test_a_refusal_is_final_and_told_at_the_end(clouded: Clouded) -> None:
    """It is asked for once."""
    clouded.errors = {"b": [REFUSAL]}
    lines = (await drain(clouded)).splitlines()
    assert lines[-2:] == ["default/b: refused: exceeded quota: one-move", "error: 1 of 3 VMs did not move"]
    assert [vm for _, vm in clouded.asked].count("b") == 1


@pytest.mark.looptime
async def test_a_refused_vm_that_somebody_else_moves_is_none_that_did_not_move(clouded: Clouded) -> None:
    """It has left the node."""
    clouded.errors = {"b": [REFUSAL]}
    later(2, clouded.put, MIGRATIONS.plural, "default/theirs", spec={"vmName": "b"}, status={"phase": "Pending"})
    later(20, clouded._begin, "b")
    later(25, clouded._land, "b")
    assert (await drain(clouded)).endswith("n1 is drained; 2 VMs moved\n")
    assert now() >= 20


@pytest.mark.looptime
async def test_ctrl_c_during_a_question_says_how_to_cancel_what_may_be_there(
    clouded: Clouded, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows whether it was carried out."""
    clouded.errors = {vm: [LOST] * 9 for vm in "abc"}
    task = asyncio.create_task(drain(clouded))
    later(1, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "kubectl delete vmm -A -l simulation.node-classifier.io/drain=n1" in capsys.readouterr().err


@UNKNOWN
@pytest.mark.looptime
async def test_a_cordon_without_an_answer_says_that_it_may_be_there(clouded: Clouded, error: KubeError) -> None:
    """And how to undo it; nothing moves."""
    clouded.failures["patch nodes"] = error
    text = await drain(clouded)
    assert text.startswith("error: ")
    assert text.endswith("; n1 may be cordoned all the same: drain it again, or kubectl uncordon n1\n")
    assert not clouded.asked


@pytest.mark.looptime
async def test_ctrl_c_during_the_cordon_says_that_it_may_be_there(
    clouded: Clouded, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request may have been carried out."""
    clouded.failures["patch nodes"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await drain(clouded)
    assert "n1 may be cordoned: drain it again, or kubectl uncordon n1\n" in capsys.readouterr().err
