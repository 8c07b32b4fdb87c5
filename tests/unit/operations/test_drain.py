"""Several nodes drained by one order: which VM moves when, what ends it, and what a change elsewhere costs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.errors import ForbiddenError
from controller.kube.resources import NODES, PODS
from controller.operations.draining.drain import Drain, NodeOutcome
from controller.operations.draining.order import Order
from controller.operations.errors import DrainFailedError, NoSuchNodeError, TimedOutError
from tests.model.faults import Fault
from tests.model.rules import Document
from tests.model.staged import Staged, later, now


@dataclass
class Fleet(Staged):
    """A cluster whose migrations take 5.5 s, to node `spare`; those of the VMs in `fail` fail."""

    fail: set[str] = field(default_factory=set)
    began: dict[str, float] = field(default_factory=dict)
    """When each VM's migration was asked for."""
    ended: dict[str, float] = field(default_factory=dict)

    def place(self, name: str, node: str) -> None:
        """Let a VM run on a node."""
        self.vm(name, phase="Running", nodeName=node)
        self.pod(f"pod-{name}", name, node=node, phase="Running")

    def cordoned(self) -> set[str]:
        """Return the nodes that the scheduler does not use."""
        return {item["metadata"]["name"] for item in self.of(NODES) if item["spec"].get("unschedulable")}

    def _written(self, method: str, plural: str, document: Document) -> None:
        super()._written(method, plural, document)
        if (method, plural) == ("create", MIGRATIONS.plural):
            vm = document["spec"]["vmName"]
            self.began[vm] = now()
            later(5.5, self._end, vm, document["metadata"]["name"])

    def _end(self, vm: str, migration: str) -> None:
        self.ended[vm] = now()
        if vm in self.fail:
            self.migration(migration, phase="Failed", failureReason="NoRoom", message="no node has room")
            return
        source = self.objects[VIRTUAL_MACHINES.plural, f"default/{vm}"]["status"]["nodeName"]
        self.remove(PODS, f"default/pod-{vm}")
        self.place(vm, "spare")
        self.migration(migration, phase="Succeeded", sourceNode=source, targetNode="spare")


@dataclass
class Heard:
    """What a listener heard."""

    lines: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    """The node of each report, in order."""

    def line(self, line: str) -> None:
        """Note a line."""
        self.lines.append(line)

    def progress(self, node: str, done: int, total: int) -> None:
        """Note a report."""
        assert done <= total
        self.looks.append(node)


@pytest.fixture
def fleet(cluster: Staged) -> Fleet:
    """Return three nodes with two VMs each, named after their node, and one with nothing but room."""
    assert not cluster.log  # it keeps the log out of the output
    found = Fleet()
    for node in ("n1", "n2", "n3", "spare"):
        found.put(NODES.plural, f"/{node}", spec={})
    for node in ("n1", "n2", "n3"):
        for letter in "ab":
            found.place(f"{node}-{letter}", node)
    return found


def drain_of(fleet: Fleet, *nodes: str, heard: Heard | None = None, **order: Any) -> Drain:
    """Return a drain of these nodes."""
    return Drain(fleet, Order(nodes, **order), heard or Heard(), Random(1))  # noqa: S311 - reproducible


def vms_of(outcome: NodeOutcome) -> set[str]:
    """Return the VMs that moved."""
    return set(outcome.moved)


@pytest.mark.looptime
async def test_nodes_are_emptied_one_after_the_other(fleet: Fleet) -> None:
    """In the order in which they are named."""
    outcomes = await drain_of(fleet, "n2", "n1").run()
    assert [(outcome.node, vms_of(outcome)) for outcome in outcomes] == [
        ("n2", {"default/n2-a", "default/n2-b"}),
        ("n1", {"default/n1-a", "default/n1-b"}),
    ]
    assert min(fleet.began["n1-a"], fleet.began["n1-b"]) >= max(fleet.ended["n2-a"], fleet.ended["n2-b"])


@pytest.mark.looptime
async def test_as_many_nodes_as_wanted_are_emptied_at_once(fleet: Fleet) -> None:
    """Two of three: the third begins when one of them is empty."""
    await drain_of(fleet, "n1", "n2", "n3", parallel_nodes=2).run()
    assert fleet.began["n1-a"] == fleet.began["n2-a"] < fleet.ended["n1-a"] <= fleet.began["n3-a"]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("order", "wanted"),
    [({}, ("system-critical", None)), ({"strategy": "Live", "priority": "user-triggered"}, ("user-triggered", "Live"))],
    ids=["default", "given"],
)
async def test_the_migrations_have_the_orders_priority_and_strategy(
    fleet: Fleet, order: dict[str, Any], wanted: tuple[str, str | None]
) -> None:
    """Without a strategy they move as the controller's default says."""
    await drain_of(fleet, "n1", **order).run()
    specs = [item["spec"] for item in fleet.of(MIGRATIONS)]
    assert [(spec["priority"], spec.get("strategy")) for spec in specs] == [wanted, wanted]


@pytest.mark.looptime
async def test_the_timeout_counts_from_the_end_of_the_first_lists(fleet: Fleet) -> None:
    """A large cluster's lists take time in which no VM can move."""

    async def slow(request: str) -> None:
        await asyncio.sleep(3 if request == f"list {PODS.plural}" else 0)

    fleet.turn = slow
    [outcome] = await drain_of(fleet, "n1", timeout=7).run()
    assert vms_of(outcome) == {"default/n1-a", "default/n1-b"}


@pytest.mark.looptime
async def test_every_node_is_cordoned_before_anything_moves(fleet: Fleet) -> None:
    """Else a VM of the first would land on the second, and move again."""
    drain = drain_of(fleet, "n1", "n2", "n3")
    seen: list[set[str]] = []
    fleet.intercept = lambda method, plural: (
        seen.append(fleet.cordoned()) if (method, plural) == ("create", MIGRATIONS.plural) else None
    )
    await drain.run()
    assert seen == [{"n1", "n2", "n3"}] * 6


@pytest.mark.looptime
async def test_a_node_that_is_not_there_is_found_before_any_is_cordoned(fleet: Fleet) -> None:
    """A slip of the pen in the last name leaves nothing behind."""
    drain = drain_of(fleet, "n1", "n2", "nowhere")
    with pytest.raises(NoSuchNodeError, match="no node nowhere"):
        await drain.run()
    assert (fleet.cordoned(), drain.unfinished) == (set(), {})


@pytest.mark.looptime
async def test_nodes_are_drained_without_the_right_to_read_them(fleet: Fleet) -> None:
    """The right to patch nodes is enough."""
    fleet.faults += [Fault("get", NODES.plural, ForbiddenError(403, "Forbidden", "no")) for _ in range(2)]
    outcomes = await drain_of(fleet, "n1", "n2").run()
    assert all(outcome.drained for outcome in outcomes)


@pytest.mark.looptime
async def test_a_vm_that_stays_on_one_node_does_not_stop_the_drain_of_others(fleet: Fleet) -> None:
    """The error at the end names it, and the nodes that are not empty."""
    fleet.fail = {"n1-a"}
    drain = drain_of(fleet, "n1", "n2")
    with pytest.raises(DrainFailedError, match="1 of 4 VMs did not move") as failed:
        await drain.run()
    assert set(failed.value.failed) == {"default/n1-a"}
    assert drain.unfinished == {"n1": False}
    assert "n2-b" in fleet.ended


@pytest.mark.looptime
async def test_the_time_is_that_of_all_nodes_together(fleet: Fleet) -> None:
    """VMs of nodes whose drain did not begin are named, too."""
    drain = drain_of(fleet, "n1", "n2", "n3", timeout=8)
    with pytest.raises(TimedOutError, match=r"after 8 s 4 VMs not done: default/n2-a, .*default/n3-b"):
        await drain.run()
    assert now() == pytest.approx(8, abs=1)
    assert drain.unfinished == {"n2": True, "n3": False}


@pytest.mark.looptime
async def test_only_the_vms_of_a_namespace_move_if_one_is_named(fleet: Fleet) -> None:
    """A drill leaves what is not its own alone."""
    outcomes = await drain_of(fleet, "n1", namespace="other").run()
    assert [vms_of(outcome) for outcome in outcomes] == [set()]
    assert not fleet.began


@pytest.mark.looptime
async def test_changes_elsewhere_cause_no_survey(fleet: Fleet) -> None:
    """However many: a look at a node is for what is on it, and for what was asked for its VMs."""
    quiet, busy = Heard(), Heard()
    await drain_of(fleet, "n1", heard=quiet).run()

    def churn(number: int) -> None:
        fleet.vm(
            f"elsewhere-{number % 10}", phase="Running", nodeName=f"n{3 + number % 2}", cpuConsumption=f"0.{number}"
        )

    for number in range(400):
        later(number / 100, churn, number)
    await drain_of(fleet, "n2", heard=busy).run()
    assert len(busy.looks) == len(quiet.looks)


@pytest.mark.looptime
async def test_a_change_on_the_node_causes_a_survey_at_once(fleet: Fleet) -> None:
    """The drain ends when its last VM arrives, not a second later."""
    await drain_of(fleet, "n1").run()
    assert now() - max(fleet.ended.values()) < 0.1


@pytest.mark.looptime
async def test_a_vm_that_comes_to_the_node_meanwhile_moves_too(fleet: Fleet) -> None:
    """It was not on the node when the drain began."""
    later(2, fleet.place, "late", "n1")
    (outcome,) = await drain_of(fleet, "n1").run()
    assert "default/late" in outcome.moved


def test_an_order_waits_for_ever_and_empties_one_node_at_a_time_unless_told() -> None:
    """As `vmsim drain NODE` does."""
    order = Order(("n1",))
    assert (order.timeout, order.parallel_nodes, order.namespace, order.reason) == (None, 1, None, "Drain")
