"""The node for a VM that is to move, or the refusal: nodes counted by reason, the closest one named."""

from __future__ import annotations

from decimal import Decimal

from controller.domain.capacity import NOTHING, Amount
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.objects import VMSpec
from controller.domain.vm.placement import Placement, requirements
from controller.domain.vm.policy import FAKE_NODES, LauncherPolicy
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
    return Demand(
        Amount(Decimal(cpu), Decimal(memory * GIB), 1), Placement(node=to, avoid="home"), requirements(VMSpec(), POLICY)
    )


def find(wanted: Demand, *nodes: Node, **cpu: int) -> str | Refused:
    """Find a node; `cpu`: the CPU in use on some nodes."""
    used = {name.replace("_", "-"): Amount(Decimal(cores), Decimal(0), 1) for name, cores in cpu.items()}
    return preflight.find_node(wanted, nodes, lambda name: used.get(name, NOTHING))


def refusal(wanted: Demand, *nodes: Node, **cpu: int) -> Refused:
    """Return the refusal where no node fits."""
    found = find(wanted, *nodes, **cpu)
    assert isinstance(found, Refused)
    return found


def test_the_node_with_the_largest_free_share_is_chosen() -> None:
    """As by the scheduler's default."""
    assert find(demand(), node("home"), node("a"), node("b"), node("c"), a=10, b=2, c=8) == "b"


def test_a_refusal_counts_the_nodes_by_reason_and_names_the_closest() -> None:
    """In the form of the scheduler's message."""
    found = refusal(
        demand(),
        node("home"),
        node("c-1", cordoned=True),
        node("c-2", cordoned=True),
        node("lost", taint="node.kubernetes.io/unreachable"),
        node("unlabeled", labels=False),
        node("tainted", taint="maintenance"),
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


def test_without_a_suitable_node_the_refusal_is_permanent() -> None:
    """A node that is not ready is among the counts."""
    found = refusal(demand(), node("home"), node("lost", taint="node.kubernetes.io/not-ready"))
    assert (found.reason, found.for_good) == (Reason.NO_SUITABLE_NODE, True)
    assert found.message == "No node is eligible (any but home): 0/2 nodes fit: 1 not ready, 1 where it runs"


def test_a_refusal_names_what_the_requested_node_lacks() -> None:
    """The other nodes are counted, too."""
    found = refusal(demand(16, 250, to="a"), node("home"), node("a"), node("b"), a=20)
    assert found.message.endswith("0/3 nodes fit: 2 not the one asked for, 1 without room (a lacks 4 CPU)")


def test_a_refusal_names_every_resource_that_a_node_lacks() -> None:
    """CPU, memory and pods."""
    full = Amount(Decimal("20.5"), Decimal(241 * GIB), 110)
    found = preflight.find_node(demand(), [node("a")], lambda _: full)
    assert isinstance(found, Refused)
    assert found.message.endswith("(a lacks 4.5 CPU and 1 GiB of memory and a place for one more pod)")


def test_a_node_with_malformed_allocatable_is_chosen_only_if_no_other_fits() -> None:
    """The scheduler decides."""
    unknown = node("unknown", cpu="many")
    assert find(demand(), node("home"), unknown) == "unknown"
    assert find(demand(), node("home"), unknown, node("a"), a=16) == "a"


def test_a_refusal_without_nodes_says_so() -> None:
    """There is nothing to count."""
    assert refusal(demand()).message == "No node is eligible (any but home): there are no nodes"
