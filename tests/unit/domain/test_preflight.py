"""The node for a VM that is to move, or the refusal: nodes counted by reason, the closest one named."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from controller.domain.capacity import NOTHING, Amount
from controller.domain.migration import preflight
from controller.domain.migration.demand import Demand
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.migration.preflight import Found
from controller.domain.objects import Claim, VMSpec
from controller.domain.vm.placement import Placement, requirements
from controller.domain.vm.policy import FAKE_NODES, LauncherPolicy
from controller.kube.kinds import Node, NodeSpec, NodeStatus, Taint
from controller.kube.meta import ObjectMeta
from controller.kube.scheduling import Affinity

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


def demand(cpu: int = 16, memory: int = 16, *, to: str | None = None, priority: int | None = None) -> Demand:
    """A VM on `home`."""
    amount = Amount(Decimal(cpu), Decimal(memory * GIB), 1)
    return Demand(amount, Placement(node=to, avoid="home"), requirements(VMSpec(), POLICY), priority)


def cores(number: int) -> Amount:
    """A pod's requests."""
    return Amount(Decimal(number), Decimal(0), 1)


def find(wanted: Demand, *nodes: Node, lower: dict[str, dict[int, int]] | None = None, **cpu: int) -> Found | Refused:
    """Find a node; `cpu`: the CPU in use on some nodes; `lower`: the part of it that is of which priority."""
    used = {name.replace("_", "-"): cores(number) for name, number in cpu.items()}

    def below(name: str, priority: int) -> list[tuple[int, Amount]]:
        held = (lower or {}).get(name, {})
        return [(each, cores(held[each])) for each in sorted(held) if each < priority]

    return preflight.find_node(wanted, nodes, lambda name: used.get(name, NOTHING), below)


def refusal(wanted: Demand, *nodes: Node, lower: dict[str, dict[int, int]] | None = None, **cpu: int) -> Refused:
    """Return the refusal where no node fits."""
    found = find(wanted, *nodes, lower=lower, **cpu)
    assert isinstance(found, Refused)
    return found


def test_the_node_with_the_largest_free_share_is_chosen() -> None:
    """As by the scheduler's default."""
    assert find(demand(), node("home"), node("a"), node("b"), node("c"), a=10, b=2, c=8) == Found("b")


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
    found = preflight.find_node(demand(), [node("a")], lambda _: full, lambda *_: ())
    assert isinstance(found, Refused)
    assert found.message.endswith("(a lacks 4.5 CPU and 1 GiB of memory and a place for one more pod)")


def test_a_node_with_malformed_allocatable_is_chosen_only_if_no_other_fits() -> None:
    """The scheduler decides."""
    unknown = node("unknown", cpu="many")
    assert find(demand(), node("home"), unknown) == Found("unknown")
    assert find(demand(), node("home"), unknown, node("a"), a=16) == Found("a")


def test_a_refusal_without_nodes_says_so() -> None:
    """There is nothing to count."""
    assert refusal(demand()).message == "No node is eligible (any but home): there are no nodes"


def test_an_overbooked_node_is_described_without_negative_numbers() -> None:
    """Another scheduler may have placed too much there; what the VM lacks includes that."""
    full = Amount(Decimal(34), Decimal(257 * GIB), 112)
    found = preflight.find_node(demand(), [node("a")], lambda _: full, lambda *_: ())
    assert isinstance(found, Refused)
    assert found.reason == Reason.NO_ROOM
    assert found.message.endswith(
        "1 without room (a is overbooked by 2 CPU and 1 GiB of memory and 2 pods, and lacks 18 CPU and "
        "17 GiB of memory and places for 3 more pods)"
    )


def test_of_two_full_nodes_the_less_overbooked_is_the_closest() -> None:
    """What is missing counts, not only the request."""
    assert "(b is overbooked by 2 CPU, and lacks 18 CPU)" in refusal(demand(), node("a"), node("b"), a=40, b=34).message


# --- preemption ---------------------------------------------------------------------------------------------------


def test_pods_of_lower_priority_count_as_free_if_no_node_has_room_beside_them() -> None:
    """And the answer says so."""
    nodes, lower = (node("home"), node("a"), node("b")), {"a": {0: 30}}
    assert find(demand(priority=10), *nodes, lower=lower, a=30, b=30) == Found("a", by_preemption=True)
    assert find(demand(priority=10), *nodes, lower=lower, a=30, b=4) == Found("b")


@pytest.mark.parametrize("priority", [None, 0])
def test_pods_of_the_same_priority_are_not_preempted_nor_any_by_a_vm_that_does_not_preempt(
    priority: int | None,
) -> None:
    """The refusal is temporary."""
    found = refusal(demand(priority=priority), node("home"), node("a"), lower={"a": {0: 30}}, a=30)
    assert (found.reason, found.for_good) == (Reason.NO_ROOM, False)
    assert found.message.endswith("1 without room (a lacks 14 CPU)")


def test_the_node_is_chosen_whose_victims_have_the_lowest_priority() -> None:
    """As by the scheduler: how much they hold comes second."""
    nodes = (node("a"), node("b"), node("c"))
    lower = {"a": {0: 3, 5: 17}, "b": {0: 16}, "c": {1: 16}}
    assert find(demand(priority=10), *nodes, lower=lower, a=20, b=32, c=17) == Found("b", by_preemption=True)


def test_of_nodes_with_like_victims_the_one_that_lacks_the_least_is_chosen() -> None:
    """The least is displaced there; of equal ones the first by name."""
    nodes = (node("c"), node("b"), node("a"))
    lower = {"a": {0: 16}, "b": {0: 16}, "c": {0: 16}}
    assert find(demand(priority=10), *nodes, lower=lower, a=32, b=20, c=20) == Found("b", by_preemption=True)


def test_no_preemption_makes_an_excluded_node_eligible() -> None:
    """The scheduler finds it unresolvable."""
    excluded = (node("home"), node("cordoned", cordoned=True), node("small", cpu="8"))
    held = {each.metadata.name: {0: 8} for each in excluded}
    assert refusal(demand(priority=10), *excluded, lower=held, home=8, cordoned=8, small=8).for_good


def test_a_refusal_says_what_a_node_lacks_even_by_preemption() -> None:
    """Beside the pods of the same and of higher priorities."""
    found = refusal(demand(priority=10), node("a"), node("b"), lower={"a": {0: 4}}, a=30, b=30)
    assert found.message.endswith("2 without room (a lacks 10 CPU even by preemption)")


def test_a_refusal_says_that_an_edited_priority_class_is_not_counted_on() -> None:
    """Only the API server knows its value."""
    wanted = msgspec.structs.replace(demand(), edited_class=True)
    found = refusal(wanted, node("a"), lower={"a": {0: 30}}, a=30)
    assert found.message.endswith(
        "(a lacks 14 CPU). No preemption is counted on: its priorityClassName was edited after its pod was made"
    )


# --- what a successful answer depends on --------------------------------------------------------------------------

SPREAD = VMSpec(topology_spread_constraints=({"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"},))


@pytest.mark.parametrize(
    ("claim", "spec", "words"),
    [
        (Claim(reserved_node="a"), VMSpec(), None),
        (Claim(), SPREAD, None),
        (
            Claim(reserved_node="a", by_preemption=True),
            VMSpec(),
            ("ByPreemption", "Preflight found room on node a by preemption of pods of lower priority"),
        ),
        (
            Claim(reserved_node="a"),
            SPREAD,
            (
                "NotJudged",
                "Preflight found room on node a; not judged, since only the scheduler can: topologySpreadConstraints",
            ),
        ),
        (
            Claim(reserved_node="a", by_preemption=True),
            VMSpec(
                scheduler_name="packer",
                affinity=Affinity(
                    pod_affinity={"requiredDuringSchedulingIgnoredDuringExecution": [{}]},
                    pod_anti_affinity={"requiredDuringSchedulingIgnoredDuringExecution": [{}]},
                ),
            ),
            (
                "ByPreemption",
                (
                    "Preflight found room on node a by preemption of pods of lower priority; not judged, since only "
                    "the scheduler can: schedulerName, podAffinity, podAntiAffinity"
                ),
            ),
        ),
    ],
)
def test_an_answer_names_what_it_depends_on(claim: Claim, spec: VMSpec, words: tuple[str, str] | None) -> None:
    """Nothing for plain room, nor where preflight sought none."""
    assert preflight.note(claim, spec) == words


def test_mere_preferences_are_not_named() -> None:
    """They bar no node."""
    spec = VMSpec(
        scheduler_name="default-scheduler",
        topology_spread_constraints=({"whenUnsatisfiable": "ScheduleAnyway"},),
        affinity=Affinity(pod_affinity={"preferredDuringSchedulingIgnoredDuringExecution": [{}]}),
    )
    assert preflight.note(Claim(reserved_node="a"), spec) is None
