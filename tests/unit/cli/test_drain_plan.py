"""What `vmsim drain --plan` prints, its exit codes, and what it does without some rights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from rich.console import Console

from controller.cli.drain import estimate
from controller.cli.drain_plan import Request, answer, duration, missed, verdict, wished
from controller.cli.session import Scope
from controller.domain import names
from controller.domain.objects import Strategy
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.errors import ForbiddenError
from controller.kube.resources import NODES, PODS, Resource
from controller.kube.verbs import Page
from controller.operations.draining.order import Order
from controller.operations.errors import NoSuchNodeError
from controller.operations.planning import planner
from controller.operations.planning.values import Plan, Step
from tests.model.staged import Staged
from tests.unit.cli.builders import run
from tests.unit.domain.builders import NOW

T = TypeVar("T")
UNPUBLISHED = (
    "no controller has published ConfigMap vmsim-controller in namespace default or vmsim-system; "
    "the controller's defaults are assumed"
)
SCOPE = Scope(namespace="default", home="default")


@dataclass
class Fleet(Staged):
    """Three nodes; two VMs run on `n1`. Resources in `forbidden` may be listed in the namespaces of `own` alone."""

    forbidden: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Create the nodes, and the VMs."""
        for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "b")):
            allocatable = {"cpu": "32", "memory": "256Gi", "pods": "110"}
            labels = {"type": "kwok", "zone": zone}
            self.put(NODES.plural, f"/{name}", metadata={"labels": labels}, status={"allocatable": allocatable})
        for name in ("vm-1", "vm-2"):
            self.vm(name, phase="Running", nodeName="n1", incarnation=0)
            self.pod(f"pod-{name}", name, node="n1", phase="Running")
        self.writes.clear()

    async def list_page(self, resource: Resource[T], **options: Any) -> Page[T]:
        """Refuse what is forbidden."""
        if resource.plural in self.forbidden and options.get("namespace") not in self.own:
            raise ForbiddenError(403, "Forbidden", f"cannot list {resource.plural}")
        return await super().list_page(resource, **options)


@pytest.fixture
def fleet(cluster: Staged) -> Fleet:
    """Return the cluster."""
    assert not cluster.log  # it keeps the log out of the output
    return Fleet()


async def printed(cluster: Fleet, capsys: pytest.CaptureFixture[str], **request: Any) -> tuple[int, str]:
    """Return the exit code and the output of a plan, by default of `n1`."""
    order = request.pop("order", Order(nodes=("n1",)))
    console = Console(width=120, markup=False, highlight=False, soft_wrap=True)
    code = await answer(cluster, Request(order, **request), SCOPE, console, NOW)
    assert not cluster.writes
    return code, capsys.readouterr().out


async def test_a_plan_shows_moves_nodes_and_a_verdict(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes nothing, and the exit code is 0."""
    code, out = await printed(fleet, capsys)
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()] == [
        "VM            NODE  COULD GO TO    HOW       BEGINS  HAS LEFT",
        "default/vm-1  n1    n2 or 1 other  Recreate    0.0s      0.1s",
        "default/vm-2  n1    n3 or 1 other  Recreate    0.0s      0.2s",
        "",
        "NODE  VMS  BEGINS  EMPTY",
        "n1      2    0.0s   0.2s",
        "",
        "Not judged:",
        f"  {UNPUBLISHED}",
        "",
        "limits: 5 in the cluster, 2 away from a node, 1 node at a time",
        "1 node can be drained in 0.2s: 2 VMs, at most 2 at once",
    ]


async def test_the_exit_code_is_1_if_it_takes_too_long(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict says so."""
    code, out = await printed(fleet, capsys, within=0.1)
    assert code == 1
    assert out.splitlines()[-1].endswith("at most 2 at once; that is more than 0.1s")
    assert (await printed(fleet, capsys, within=60.0))[0] == 0


async def test_the_exit_code_is_1_if_something_blocks_it(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """VMs that share a reason share a line."""
    fleet.vm("vm-2", phase="Scheduled", nodeName="n1")
    fleet.writes.clear()
    code, out = await printed(fleet, capsys, order=Order(nodes=("n1", "n2", "n3")))
    lines = out.splitlines()
    assert code == 1
    assert lines[lines.index("Blocked:") + 1].startswith("  default/vm-2 on n1: the VM is Scheduled")
    assert "0/3 nodes fit: 2 cordoned, 1 where it runs" in lines[lines.index("Blocked:") + 2]
    assert lines[-1] == "3 nodes cannot be drained: 2 of 2 VMs would stay"


async def test_the_json_document_names_its_units(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read it, so its fields stay."""
    code, out = await printed(fleet, capsys, as_json=True, within=60.0, order=Order(("n1",), strategy="Live"))
    found = json.loads(out)
    assert code == 0
    assert list(found) == [
        *("possible", "seconds", "withinSeconds", "inTime", "atOnce", "parallelNodes", "controllers"),
        *("nodes", "moves", "blockers", "notJudged"),
    ]
    assert found["controllers"] == [
        {
            "class": None,
            "strategy": "Live",
            "speed": 1.0,
            "parallelMigrationsPerCluster": 5,
            "parallelOutboundMigrationsPerNode": 2,
        }
    ]
    [first, second] = found["moves"]
    assert (first["vm"], first["node"], first["candidates"], first["strategy"]) == (
        *("default/vm-1", "n1"),
        *(["n2", "n3"], "Live"),
    )
    assert found["nodes"] == [
        {"name": "n1", "vms": 2, "beginsSeconds": 0.0, "emptySeconds": max(first["leftSeconds"], second["leftSeconds"])}
    ]


async def test_nodes_are_chosen_by_their_labels(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of their names."""
    _, out = await printed(fleet, capsys, as_json=True, selector="zone=b", order=Order(nodes=()))
    assert [node["name"] for node in json.loads(out)["nodes"]] == ["n2", "n3"]


@pytest.mark.parametrize(("nodes", "selector"), [(("n1", "n9"), None), ((), "zone=c")])
async def test_a_node_that_does_not_exist_is_an_error(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], nodes: tuple[str, ...], selector: str | None
) -> None:
    """It is a wrong argument, and no answer about a drain."""
    with pytest.raises(NoSuchNodeError, match=r"there is no node n9: see|no node matches zone=c: see"):
        await printed(fleet, capsys, order=Order(nodes), selector=selector)


@pytest.mark.parametrize("forbidden", [NODES, VIRTUAL_MACHINES], ids=lambda resource: str(resource.plural))
async def test_without_nodes_or_any_vm_there_is_no_answer(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], forbidden: Resource[Any]
) -> None:
    """A plan of nothing would be wrong."""
    fleet.forbidden.add(forbidden.plural)
    with pytest.raises(ForbiddenError):
        await printed(fleet, capsys)


async def test_namespaces_that_may_not_be_read_are_not_judged(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The credentials' own is."""
    fleet.forbidden |= {VIRTUAL_MACHINES.plural, PODS.plural, MIGRATIONS.plural}
    fleet.own = {"default"}
    code, out = await printed(fleet, capsys)
    assert code == 0
    for what in ("VMs", "pods", "migrations"):
        assert f"  {what} of namespaces other than default: they may not be listed" in out.splitlines()


async def test_a_vm_whose_status_does_not_name_its_node_yet_is_planned(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the settings of its own class of controllers."""
    fleet.vm("vm-3", phase="Running")
    fleet.edit(VIRTUAL_MACHINES, "default/vm-3", labels={names.CONTROLLER_CLASS: "b"})
    fleet.pod("pod-vm-3", "vm-3", node="n1", phase="Running")
    fleet.writes.clear()
    _, out = await printed(fleet, capsys)
    assert "default/vm-3" in out
    assert "Class b: limits:" in out


async def test_a_drain_says_what_its_estimate_assumes(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the controller's defaults."""
    order = Order(nodes=("n1",))
    console = Console(width=120, markup=False, highlight=False, soft_wrap=True)
    assert await estimate(fleet, wished(order.nodes, order, SCOPE), console) is not None
    assert f"note: the estimate does not judge: {UNPUBLISHED}" in capsys.readouterr().out.splitlines()


async def test_a_drain_goes_on_without_an_estimate(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, in one line."""

    def broken(*_: Any, **__: Any) -> Plan:
        raise ValueError("no such\nnumber")

    monkeypatch.setattr(planner, "plan", broken)
    order = Order(nodes=("n1",))
    assert await estimate(fleet, wished(order.nodes, order, SCOPE), Console(width=120)) is None
    assert capsys.readouterr().out == "note: there is no estimate: ValueError: no such number\n"


def test_without_a_cluster_the_exit_code_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    """A script can tell that from a drain that cannot be done."""
    code, out, err = run(capsys, "drain", "n1", "--plan", "--kubeconfig", "/nonexistent")
    assert (code, out) == (3, "")
    assert "error: cannot use /nonexistent" in err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (184, "3m04s"), (3599.7, "1h00m"), (7500, "2h05m")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    """With a decimal only where it matters."""
    assert duration(seconds) == words


def test_an_estimate_is_compared_with_the_drain() -> None:
    """A drain without VMs has no estimate to be off."""
    step = Step("default/vm-1", "n1", "n2", ("n2",), Strategy.LIVE, 0.0, 100.0)
    assert missed(Plan((step,), ()), 112.0) == "it took 1m52s; the estimate was 1m40s (+12%)"
    assert missed(Plan((), ()), 0.1) == "it took 0.1s; the estimate was 0.0s"
    assert verdict(Plan((), ())) == "0 nodes can be drained in 0.0s: no VM is there"
