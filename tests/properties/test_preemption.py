"""Room by preemption, against models that recompute everything: the sums by priority, and the scheduler's preemption.

The model of the scheduler is its plugin DefaultPreemption for one pod and without disruption budgets: on each node it
removes the pods of lower priority, puts back whom it can, the highest priority first, and prefers the node whose most
important victim has the lowest priority.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.capacity import NOTHING, Amount
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
from controller.domain.migration.plan import Refused
from controller.domain.objects import VMSpec
from controller.domain.vm.placement import Placement, requirements
from controller.domain.vm.policy import FAKE_NODES, LauncherPolicy
from controller.kube.kinds import Node, NodeStatus
from controller.kube.meta import ObjectMeta
from controller.observe.loads import Ledger

FEW: Final = settings(max_examples=200, deadline=None, derandomize=True, database=None)
NODES: Final = ("a", "b", "c")
SIZE: Final = 4
"""CPU and memory (bytes) of a node."""
PRIORITIES: Final = st.sampled_from((-1, 0, 0, 5, 9))
Occupant: TypeAlias = tuple[Amount, int]
"""A pod's requests and its priority."""

amounts: Final = st.builds(Amount, *(st.integers(0, SIZE).map(Decimal),) * 2, st.just(1))
fleets: Final = st.fixed_dictionaries({name: st.lists(st.tuples(amounts, PRIORITIES), max_size=5) for name in NODES})


def total(pods: list[Occupant]) -> Amount:
    """Return the sum of some pods' requests."""
    return sum((amount for amount, _ in pods), NOTHING)


@FEW
@given(st.lists(st.tuples(st.sampled_from("pqrst"), st.sampled_from((None, *NODES)), amounts, PRIORITIES)), PRIORITIES)
def test_sums_by_priority_are_those_of_the_pods_that_are_there(
    changes: list[tuple[str, str | None, Amount, int]], limit: int
) -> None:
    """After any changes, whose last one of a pod holds; no node: it is deleted. All priorities add up to the sum."""
    ledger = Ledger()
    pods: dict[str, tuple[str, Amount, int]] = {}
    for pod, node, amount, priority in changes:
        pods.pop(pod, None)
        if node is None:
            ledger.drop(pod)
        else:
            ledger.put(pod, node, amount, priority)
            pods[pod] = node, amount, priority
    for name in NODES:
        held = [(amount, priority) for node, amount, priority in pods.values() if node == name]
        below = {
            level: total([pod for pod in held if pod[1] == level])
            for level in sorted({p for _, p in held if p < limit})
        }
        assert list(ledger.below(name, limit)) == list(below.items())
        assert sum((amount for _, amount in ledger.below(name, 100)), NOTHING) == ledger.on(name) == total(held)


def most_important_victim(wanted: Amount, priority: int, pods: list[Occupant], whole: Amount) -> int | None:
    """Return the highest priority of those that the scheduler preempts on a node; None if that does not help."""
    kept = [pod for pod in pods if pod[1] >= priority]
    if not wanted.fits(whole - total(kept)):
        return None
    victims = []
    for pod in sorted((pod for pod in pods if pod[1] < priority), key=lambda pod: -pod[1]):
        if wanted.fits(whole - total([*kept, pod])):
            kept.append(pod)
        else:
            victims.append(pod[1])
    return max(victims)


@FEW
@given(fleets, amounts, PRIORITIES)
def test_a_node_is_found_where_the_scheduler_would_preempt_and_among_the_best(
    fleet: dict[str, list[Occupant]], wanted: Amount, priority: int
) -> None:
    """Nodes with room come first. Nodes may be overbooked."""
    whole = Amount(Decimal(SIZE), Decimal(SIZE), 4)
    ledger = Ledger()
    for name, pods in fleet.items():
        for number, (amount, level) in enumerate(pods):
            ledger.put(f"{name}-{number}", name, amount, level)
    nodes = [
        Node(
            ObjectMeta(name=name, labels=dict(FAKE_NODES)),
            status=NodeStatus({"cpu": str(SIZE), "memory": str(SIZE), "pods": "4"}),
        )
        for name in NODES
    ]
    demand = Demand(wanted, Placement(avoid="home"), requirements(VMSpec(), LauncherPolicy()), priority)
    found = preflight.find_node(demand, nodes, ledger.on, ledger.below)

    roomy = [name for name in NODES if wanted.fits(whole - total(fleet[name]))]
    helped = {name: most_important_victim(wanted, priority, fleet[name], whole) for name in NODES if not roomy}
    victims = {name: highest for name, highest in helped.items() if highest is not None}
    if roomy:
        assert isinstance(found, preflight.Found)
        assert (found.node in roomy, found.by_preemption) == (True, False)
    elif victims:
        assert isinstance(found, preflight.Found)
        assert found.by_preemption
        assert victims[found.node] == min(victims.values())
    else:
        assert isinstance(found, Refused)
        assert not found.for_good
        assert "-" not in found.message.replace("home", ""), "no negative number"
