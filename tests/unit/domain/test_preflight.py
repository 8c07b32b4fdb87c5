"""Which node could hold a VM that is to move, and why none can: counted by reason, the nearest miss named."""

from __future__ import annotations

from decimal import Decimal

from controller.domain.capacity import NOTHING, Amount
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.vm.launcher import FAKE_NODES, LauncherPolicy, Placement
from controller.kube.kinds import Node, NodeSpec, NodeStatus, Taint
from controller.kube.meta import ObjectMeta

POLICY = LauncherPolicy()
GIB = 2**30


def node(name: str, *, cpu: str = "32", cordoned: bool = False, taint: str = "", labels: bool = True) -> Node:
    """A fake node with 256 GiB."""
    taints = (Taint(key=taint, effect="NoExecute"),) if taint else ()
    return Node(
        ObjectMeta(name=name, labels=dict(FAKE_NODES) if labels else {}),
        NodeSpec(unschedulable=cordoned, taints=taints),
        NodeStatus({"cpu": cpu, "memory": "256Gi", "pods": "110"}),
    )


def demand(cpu: int = 16, memory: int = 16, *, to: str | None = None) -> Demand:
    """A VM on `home`."""
    return Demand(Amount(Decimal(cpu), Decimal(memory * GIB), 1), Placement(node=to, avoid="home"))


def find(wanted: Demand, *nodes: Node, **cpu: int) -> str | Refused:
    """Look for a node, of which some have so much CPU in use."""
    used = {name.replace("_", "-"): Amount(Decimal(cores), Decimal(0), 1) for name, cores in cpu.items()}
    return preflight.find_node(wanted, nodes, lambda name: used.get(name, NOTHING), POLICY)


def refusal(wanted: Demand, *nodes: Node, **cpu: int) -> Refused:
    """Look for a node where there is none."""
    found = find(wanted, *nodes, **cpu)
    assert isinstance(found, Refused)
    return found


def test_the_node_with_the_most_room_is_named() -> None:
    """The scheduler would choose it, too, unless it is told otherwise."""
    assert find(demand(), node("home"), node("a"), node("b"), node("c"), a=10, b=2, c=8) == "b"


def test_a_refusal_counts_the_nodes_by_reason_and_names_the_nearest_miss() -> None:
    """As the scheduler tells it."""
    found = refusal(
        demand(),
        node("home"),
        node("c-1", cordoned=True),
        node("c-2", cordoned=True),
        node("lost", taint="node.kubernetes.io/unreachable"),
        node("odd", labels=False),
        node("kept", taint="maintenance"),
        node("small", cpu="8"),
        node("far"),
        node("near"),
        far=30,
        near=20,
    )
    assert (found.reason, found.for_good) == (Reason.NO_ROOM, False)
    assert found.message == (
        "None of 2 suitable nodes has room for it now: 0/9 nodes fit: 2 cordoned, 1 not ready, 1 too small, "
        "1 where it runs, 1 with a taint that it does not tolerate, 1 without a matching label, "
        "2 without room (near lacks 4 CPU)"
    )


def test_with_no_suitable_node_it_is_refused_for_good_and_says_what_of_each() -> None:
    """A node that is not ready is told of."""
    found = refusal(demand(), node("home"), node("lost", taint="node.kubernetes.io/not-ready"))
    assert (found.reason, found.for_good) == (Reason.NO_SUITABLE_NODE, True)
    assert found.message == "No node is eligible (any but home): 0/2 nodes fit: 1 not ready, 1 where it runs"


def test_of_a_node_that_was_asked_for_it_says_what_it_lacks() -> None:
    """The others count, too."""
    found = refusal(demand(16, 250, to="a"), node("home"), node("a"), node("b"), a=20)
    assert found.message.endswith("0/3 nodes fit: 2 not the one asked for, 1 without room (a lacks 4 CPU)")


def test_everything_that_a_node_lacks_is_named() -> None:
    """CPU, memory, and places."""
    full = Amount(Decimal("20.5"), Decimal(241 * GIB), 110)
    found = preflight.find_node(demand(), [node("a")], lambda _: full, POLICY)
    assert isinstance(found, Refused)
    assert found.message.endswith("(a lacks 4.5 CPU and 1 GiB of memory and a place for one more pod)")


def test_a_node_of_which_nobody_knows_what_it_holds_is_left_to_the_scheduler() -> None:
    """It is named when there is no better one."""
    odd = node("odd", cpu="many")
    assert find(demand(), node("home"), odd) == "odd"
    assert find(demand(), node("home"), odd, node("a"), a=16) == "a"


def test_without_nodes_it_says_so() -> None:
    """There is nothing to count."""
    assert refusal(demand()).message == "No node is eligible (any but home): there are no nodes"
