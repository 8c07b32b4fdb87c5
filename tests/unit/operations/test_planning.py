"""The plan of a drain: who leaves, where to, in which order and how many at once, and when a node is empty."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from controller.domain import names
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy, VMResources
from controller.kube.scheduling import Affinity
from controller.operations.planning import timing
from controller.operations.planning.values import Blocker, Cause, Plan
from tests.unit.domain.builders import T1
from tests.unit.operations.fleets import GIB, known, node, other_pod, plan, settings, vm

NODES = [node("n1"), node("n2"), node("n3"), node("n4")]
FOUR = [vm(f"vm-{number}", "n1") for number in range(1, 5)]
NEVER = settings(
    live=True, dirty_rate=2e9, bandwidth_per_migration=1e9, completion_timeout_per_gib=1.0, dirty_rate_jitter=0.0
)
"""A guest that dirties its memory twice as fast as it is sent."""


def only(found: Plan) -> Blocker:
    """Return the one blocker of a plan."""
    assert not found.possible
    [blocker] = found.blockers
    return blocker


def test_every_vm_of_the_node_leaves_to_another_node() -> None:
    """No node that is drained is a candidate, nor is any of them the VM's own."""
    found = plan(known(NODES, [*FOUR, vm("vm-5", "n2"), vm("elsewhere", "n3")]), "n1", "n2")
    assert found.possible
    assert [step.vm for step in found.steps] == [f"default/vm-{number}" for number in range(1, 6)]
    assert {name for step in found.steps for name in step.candidates} == {"n3", "n4"}
    assert [node.vms for node in found.nodes] == [4, 1]


def test_the_emptiest_node_is_assumed_first() -> None:
    """As the scheduler mostly does; the others are named as well."""
    [step] = plan(
        known(NODES, [FOUR[0]], pods=[other_pod("web-1", "n2", "8"), other_pod("web-2", "n3", "4")]), "n1"
    ).steps
    assert (step.target, step.candidates) == ("n4", ("n4", "n3", "n2"))


def test_at_most_the_limit_of_a_node_move_at_once() -> None:
    """Two at a time, so four VMs that boot take twice as long as two."""
    found = plan(known(NODES, FOUR, settings(boot=60)), "n1")
    first, second = 60 + timing.RECREATE, 60 + 2 * timing.RECREATE
    assert found.at_once == 2
    assert [step.begins for step in found.steps] == pytest.approx([0, 0, first, second])
    assert found.nodes[0].empty == pytest.approx(first + second)


def test_the_control_plane_does_one_move_after_the_other() -> None:
    """So more moves at once are not faster, unless they boot or copy."""
    found = plan(known(NODES, FOUR, settings(outbound=0)), "n1")
    assert found.at_once == 4
    assert found.seconds == pytest.approx(4 * timing.RECREATE)


def test_the_limit_of_the_cluster_holds_for_nodes_in_parallel() -> None:
    """With the lower limit of the cluster, the second node's VMs wait."""
    vms = [*FOUR, *(vm(f"vm-{number}", "n2") for number in range(5, 9))]
    assert plan(known(NODES, vms, settings(cluster=3)), "n1", "n2", parallel_nodes=2).at_once == 3
    assert plan(known(NODES, vms, settings(cluster=0, outbound=0)), "n1", "n2", parallel_nodes=2).at_once == 8


def test_the_second_node_begins_when_the_first_is_empty() -> None:
    """Unless both are drained at once."""
    of = known(NODES, [*FOUR, vm("vm-5", "n2")])
    first, second = plan(of, "n1", "n2").nodes
    assert first.empty is not None
    assert second.begins == pytest.approx(first.empty + timing.BETWEEN_NODES)
    assert [node.begins for node in plan(of, "n1", "n2", parallel_nodes=2).nodes] == [0, 0]


def test_an_empty_node_is_empty_at_once() -> None:
    """Nothing has to leave."""
    found = plan(known(NODES, FOUR), "n2")
    assert found.possible
    assert (found.steps, found.nodes[0].empty) == ((), 0)


def test_boot_counts_by_the_speed() -> None:
    """A Recreate move has its slot until the guest runs: 90 simulated seconds are 9 real ones at speed 10."""
    [step] = plan(known(NODES, FOUR[:1], settings(boot=90, speed=10)), "n1").steps
    assert step.ends == pytest.approx(9 + timing.RECREATE)


def test_a_live_move_copies_by_the_model() -> None:
    """Half of 51.2 GiB in use at 1 GB/s: 27.5 GB are sent in round one."""
    machine = vm("vm-1", "n1", annotations={"simulation.node-classifier.io/memory-consumption": "0.1"})
    rules = settings(live=True, bandwidth_per_migration=1e9, dirty_rate=0.0)
    [step] = plan(known(NODES, [machine], rules), "n1").steps
    first_round = 0.885 * 25.6 * GIB / 1e9
    assert step.strategy is Strategy.LIVE
    assert step.ends == pytest.approx(first_round + 0.25 + 0.12 + timing.LIVE_BEFORE + timing.LIVE_AFTER)


def test_moves_that_copy_at_once_share_the_links() -> None:
    """Two VMs leave one node by its one way out: each takes twice as long as alone."""
    rules = settings(live=True, dirty_rate=0.0, bandwidth_per_node=1e9)
    alone = plan(known(NODES, FOUR[:1], rules), "n1").seconds
    both = plan(known(NODES, FOUR[:2], rules), "n1").seconds
    assert both == pytest.approx(2 * alone, rel=0.02)


def test_copying_takes_less_real_time_at_a_higher_speed() -> None:
    """The work of the control plane does not."""
    slow, fast = (plan(known(NODES, FOUR[:1], settings(live=True, speed=speed)), "n1").seconds for speed in (1, 10))
    constant = timing.LIVE_BEFORE + timing.LIVE_AFTER
    assert fast - constant == pytest.approx((slow - constant) / 10)


def test_a_vm_that_never_converges_blocks_and_its_node_is_never_empty() -> None:
    """The plan says after which time the migration fails, and the other VMs leave all the same."""
    found = plan(known(NODES, FOUR[:1], NEVER), "n1")
    blocker = only(found)
    assert blocker.cause is Cause.NEVER_CONVERGES
    assert blocker.fails == pytest.approx(55, abs=1)
    assert "after 55 simulated seconds" in blocker.why
    assert found.nodes[0].empty is None
    paused = replace(NEVER, live=replace(NEVER.live, allow_workload_disruption=True))
    assert plan(known(NODES, FOUR[:1], paused), "n1").possible


def test_a_vm_that_copies_without_end_leaves_no_turn_to_the_others() -> None:
    """Without a completion timeout nothing ends it."""
    endless = replace(NEVER, limits=Limits(outbound=1), live=replace(NEVER.live, completion_timeout_per_gib=0.0))
    found = plan(known(NODES, FOUR[:2], endless), "n1")
    assert [blocker.cause for blocker in found.blockers] == [Cause.NEVER_CONVERGES, Cause.NO_TURN]


def test_no_room_anywhere_blocks_and_fails_after_the_timeout() -> None:
    """In the words of preflight; the smaller VM goes."""
    vms = [vm("large", "n1", cpu="0.9"), vm("small", "n1", cpu="0.1")]
    full = [other_pod(f"web-{name}", name, "20") for name in ("n2", "n3", "n4")]
    found = plan(known(NODES, vms, pods=full), "n1")
    blocker = only(found)
    assert [step.vm for step in found.steps] == ["default/small"]
    assert (blocker.vm, blocker.cause, blocker.fails) == ("default/large", Cause.NO_ROOM, 300)
    assert blocker.why.startswith("None of 3 suitable nodes has room for it now: 0/4 nodes fit: 1 where it runs")


def test_room_that_another_move_takes_is_taken() -> None:
    """Two VMs of 60 % each, and one node that holds one of them."""
    vms = [vm(name, "n1", cpu="0.6") for name in ("a", "b")]
    found = plan(known(NODES[:2], vms), "n1")
    assert ([step.vm for step in found.steps], only(found).vm) == (["default/a"], "default/b")


def test_a_selector_or_an_affinity_that_no_node_matches_blocks_at_once() -> None:
    """It could never go."""
    nowhere = Affinity()
    blocked = vm("vm-1", "n1", spec={"node_selector": {"zone": "c"}, "affinity": nowhere})
    blocker = only(plan(known(NODES, [blocked]), "n1"))
    assert (blocker.cause, blocker.fails) == (Cause.NO_SUITABLE_NODE, 0)
    assert "3 without a matching label" in blocker.why


def test_a_source_that_is_not_ready_blocks() -> None:
    """Its kubelet would not finish the deletion."""
    blocker = only(plan(known([node("n1", ready=False), *NODES[1:]], FOUR[:1]), "n1"))
    assert (blocker.cause, blocker.fails) == (Cause.SOURCE_NOT_READY, 300)
    assert blocker.why == "its source is not ready: node n1 is not ready"


def test_a_spec_that_cannot_be_used_blocks() -> None:
    """No pod can be made from it."""
    broken = vm("vm-1", "n1", spec={"resources": VMResources("many", "0.1")})
    assert only(plan(known(NODES, [broken]), "n1")).cause is Cause.INVALID_SPEC


def test_a_pod_whose_requests_cannot_be_read_blocks_a_live_move() -> None:
    """What it copies is not known."""
    machine, pod = FOUR[0]
    broken = {**pod.metadata.annotations, names.REQUESTED_MEMORY: "x"}
    pod = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, annotations=broken))
    assert only(plan(known(NODES, [(machine, pod)], settings(live=True)), "n1")).cause is Cause.INVALID_SPEC


def test_more_nodes_at_once_than_there_are_cost_nothing() -> None:
    """However many."""
    assert plan(known(NODES, FOUR), "n1", parallel_nodes=10**9).possible


def test_a_vm_that_does_not_run_blocks() -> None:
    """The drain would wait for it."""
    blocker = only(plan(known(NODES, [vm("vm-1", "n1", phase="Scheduled")]), "n1"))
    assert (blocker.cause, blocker.fails) == (Cause.NOT_MOVABLE, None)
    assert "only a Running VM moves" in blocker.why


def test_a_vm_that_does_not_run_keeps_the_next_node_from_beginning() -> None:
    """The drain waits for it without end; several nodes at once do not wait for each other."""
    of = known(NODES, [vm("a", "n1", phase="Scheduled"), vm("b", "n2"), vm("c", "n2", phase="Scheduled")])
    found = plan(of, "n1", "n2")
    assert [(blocker.vm, blocker.cause) for blocker in found.blockers] == [
        ("default/a", Cause.NOT_MOVABLE),
        ("default/c", Cause.NOT_MOVABLE),
        ("default/b", Cause.NO_TURN),
    ]
    assert found.nodes[1].begins is None
    assert [step.vm for step in plan(of, "n1", "n2", parallel_nodes=2).steps] == ["default/b"]


def test_a_pod_that_is_being_deleted_is_not_judged_unless_something_holds_it() -> None:
    """Its VM restarts elsewhere by itself."""
    going = plan(known(NODES, [vm("vm-1", "n1", terminating=True)]), "n1")
    assert going.possible
    assert [entry.vms for entry in going.not_judged] == [("default/vm-1",)]
    stuck = vm("vm-1", "n1", terminating=True, deleted=True, held_by=("example.com/backup",))
    assert "held by finalizer example.com/backup" in only(plan(known(NODES, [stuck]), "n1")).why


def test_a_preempting_move_names_whom_it_would_displace() -> None:
    """The scheduler spares whom it can, the most important first."""
    important = vm("vm-1", "n1", cpu="0.5", priority=1000)
    pods = [
        other_pod("low", "n2", "10"),
        other_pod("middle", "n2", "10", priority=10),
        other_pod("high", "n2", "10", priority=2000),
    ]
    found = plan(known(NODES[:2], [important], pods=pods), "n1")
    [step] = found.steps
    assert step.displaces == ("web/low", "web/middle")
    assert found.not_judged[0].vms == ("default/vm-1",)
    [step] = plan(known(NODES[:2], [vm("vm-1", "n1", cpu="0.3", priority=1000)], pods=pods), "n1").steps
    assert step.displaces == ("web/low",)


def test_what_only_the_scheduler_can_judge_is_listed_by_field() -> None:
    """With the VMs that set it; so is what could not be read."""
    spread = {"topology_spread_constraints": ({"whenUnsatisfiable": "DoNotSchedule"},)}
    vms = [vm("a", "n1", spec=spread), vm("b", "n1", spec={"scheduler_name": "mine"}), vm("c", "n1", spec=spread)]
    found = plan(known(NODES, vms, unread=("pods of other owners",)), "n1")
    assert [(entry.what, entry.vms) for entry in found.not_judged] == [
        ("schedulerName", ("default/b",)),
        ("topologySpreadConstraints", ("default/a", "default/c")),
        ("pods of other owners", ()),
    ]


def test_a_vm_that_boots_moves_when_it_runs() -> None:
    """Its pod started ten seconds ago, and boots for half a minute."""
    machine, pod = vm("vm-1", "n1", phase="Scheduled", annotations={"simulation.node-classifier.io/boot-time": "30s"})
    pod = pod.__class__(pod.metadata, pod.spec, pod.status.__class__("Running", start_time=T1))
    [step] = plan(known(NODES, [(machine, pod)]), "n1").steps
    assert step.begins == pytest.approx(20)
