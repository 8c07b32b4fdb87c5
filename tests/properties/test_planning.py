"""Plans of random drains: no limit is exceeded, every VM leaves once or is named, no node gets more than it holds."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Final

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from controller.domain import requests
from controller.operations.planning.planner import Known
from controller.operations.planning.values import Plan
from tests.unit.operations.fleets import known, node, other_pod, plan, settings, vm

SHARES = ("0", "0.1", "0.3", "0.6", "1")
NODES = ("n1", "n2", "n3", "n4", "n5")
DRAINED = NODES[:3]
FEW: Final = hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Known, int]:
    """Draw a cluster, and how many nodes are drained at once."""
    vms = [
        vm(
            f"vm-{number:02}",
            draw(st.sampled_from(NODES)),
            cpu=draw(st.sampled_from(SHARES)),
            memory=draw(st.sampled_from(SHARES)),
            priority=draw(st.sampled_from((0, 0, 10))),
            phase=draw(st.sampled_from(("Running", "Running", "Running", "Scheduled"))),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    rules = settings(
        cluster=draw(st.integers(0, 4)),
        outbound=draw(st.integers(0, 3)),
        live=draw(st.booleans()),
        speed=draw(st.sampled_from((1.0, 60.0))),
        boot=draw(st.sampled_from((0.0, 45.0))),
        dirty_rate=draw(st.sampled_from((0.0, 1e7, 5e9))),
        completion_timeout_per_gib=draw(st.sampled_from((0.5, 5.0))),
        bandwidth_per_migration=draw(st.sampled_from((0.0, 1e9))),
    )
    pods = [other_pod(f"web-{name}", name, draw(st.sampled_from(("0", "8", "30")))) for name in NODES]
    return known([node(name) for name in NODES], vms, rules, pods=pods), draw(st.integers(1, 3))


def moving(found: Plan, at: float, name: str | None = None) -> int:
    """Return how many VMs have a slot at a moment: in the cluster, or away from a node."""
    return sum(step.begins <= at < step.ends and name in (None, step.node) for step in found.steps)


@FEW
@given(fleets())
def test_no_limit_is_ever_exceeded(fleet: tuple[Known, int]) -> None:
    """Those that fail are counted by `at_once`, too."""
    of, at_once = fleet
    limits = of.rules[None].limits
    found = plan(of, *DRAINED, parallel_nodes=at_once)
    assert not limits.cluster or found.at_once <= limits.cluster
    for step in found.steps:
        assert not limits.outbound or moving(found, step.begins, step.node) <= limits.outbound
        assert moving(found, step.begins) <= found.at_once
    spans = [(each.begins, each.empty) for each in found.nodes if each.begins is not None and each.empty is not None]
    for at, _ in spans:
        assert sum(begins <= at < empty for begins, empty in spans) <= at_once


@FEW
@given(fleets())
def test_every_vm_leaves_once_or_is_a_blocker(fleet: tuple[Known, int]) -> None:
    """A node is empty when its last VM has left, and never if one stays."""
    of, at_once = fleet
    found = plan(of, *DRAINED, parallel_nodes=at_once)
    there = {machine.metadata.key for machine in of.vms if machine.status.node_name in DRAINED}
    named = Counter([*(step.vm for step in found.steps), *(blocker.vm for blocker in found.blockers)])
    assert named == dict.fromkeys(there, 1)
    for each in found.nodes:
        stays = any(blocker.node == each.name for blocker in found.blockers)
        ends = [step.ends for step in found.steps if step.node == each.name]
        assert (each.empty is None) == stays
        if each.empty is not None and each.begins is not None:
            assert each.empty == max([each.begins, *ends])
    assert found.possible != bool(found.blockers)
    assert plan(of, *DRAINED, parallel_nodes=at_once) == found


@FEW
@given(fleets())
def test_no_node_gets_more_than_it_holds(fleet: tuple[Known, int]) -> None:
    """Whatever moves beside each other. Where the scheduler preempts, its victims have left room."""
    of, at_once = fleet
    found = plan(of, *DRAINED, parallel_nodes=at_once)
    displaced = {pod for pods in found.displaced.values() for pod in pods}
    wanted = {machine.metadata.key: Decimal(machine.spec.resources.cpu) * 32 for machine in of.vms}
    for name in NODES[3:]:
        held = {pod.metadata.key: requests.of_pod(pod).cpu for pod in of.pods if pod.spec.node_name == name}
        arrived = {step.vm: wanted[step.vm] for step in found.steps if step.target == name}
        left = [cpu for pod, cpu in (held | arrived).items() if pod not in displaced]
        assert not any(arrived.values()) or sum(left) <= 32
    for step in found.steps:
        assert step.target not in DRAINED
        assert step.target == step.candidates[0]
