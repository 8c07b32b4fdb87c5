"""Packing: whether VMs fit on the nodes that accept them, placed one by one and not by sums."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.preview import fitting
from controller.domain.capacity import Amount
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.kinds import Node
from controller.kube.scheduling import Toleration
from controller.operations.settings import Reading
from controller.scenario.packing import Demand, Packing, Size, Space, pack, pack_fleet
from controller.scenario.scenario import Scenario
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
SIZES = st.builds(Size, cpu=st.integers(0, 8), memory=st.integers(0, 8), pods=st.just(1))
NODES = st.builds(Size, cpu=st.integers(-1, 12), memory=st.integers(-1, 12), pods=st.integers(-1, 4))


def read(text: str) -> Scenario:
    """Read what follows the head."""
    return parse(HEAD + text, "s.yaml", Path("/nowhere"))


def said(text: str) -> list[str]:
    """Return the lines for the user about a scenario."""
    return list(fitting(pack_fleet(read(text).fleet), Reading()))


def node(name: str, cpu: str, **spec: object) -> Node:
    """Return a node of the cluster."""
    allocatable = {"cpu": cpu, "memory": "256Gi", "pods": "110"}
    metadata = {"name": name, "labels": {"type": "kwok"}}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}}, Node)


def packed(sizes: list[Size], nodes: list[Size]) -> Packing:
    """Place VMs of one group."""
    demands = [Demand("g", f"v-{index}", size) for index, size in enumerate(sizes)]
    return pack(demands, [Space(f"n-{index}", free) for index, free in enumerate(nodes)], {})


def fit(sizes: list[Size], nodes: list[Size]) -> bool:
    """Whether any placement of all VMs exists, by trying each."""
    return any(
        all(
            (sum(sizes[vm].cpu for vm in on) <= free.cpu or not any(sizes[vm].cpu for vm in on))
            and (sum(sizes[vm].memory for vm in on) <= free.memory or not any(sizes[vm].memory for vm in on))
            and len(on) <= max(0, free.pods)
            for index, free in enumerate(nodes)
            for on in [[vm for vm, chosen in enumerate(way) if chosen == index]]
        )
        for way in product(range(len(nodes)), repeat=len(sizes))
    )


@given(st.lists(SIZES, max_size=5), st.lists(NODES, min_size=1, max_size=3))
def test_a_packing_without_unplaced_vms_exists_and_a_certain_refusal_is_right(
    sizes: list[Size], nodes: list[Size]
) -> None:
    """Against every placement."""
    packing = packed(sizes, nodes)
    found = not packing.unplaced
    if found:
        assert fit(sizes, nodes)
    elif packing.certain:
        assert not fit(sizes, nodes)


@given(st.lists(SIZES, max_size=12), st.lists(NODES, min_size=1, max_size=6))
def test_packing_is_first_fit_decreasing(sizes: list[Size], nodes: list[Size]) -> None:
    """Equal to a linear scan of the nodes."""
    total = Size(*(sum(getattr(free, name) for free in nodes) for name in ("cpu", "memory", "pods")))
    left = [[free.cpu, free.memory, free.pods] for free in nodes]
    lost = []
    order = sorted(range(len(sizes)), key=lambda vm: (-sizes[vm].excess(total), -sizes[vm].cpu, -sizes[vm].memory))
    for vm in order:
        need = (sizes[vm].cpu, sizes[vm].memory, 1)
        taken = next((has for has in left if all(not n or n <= h for n, h in zip(need, has, strict=True))), None)
        if taken is None:
            lost.append(f"v-{vm}")
        else:
            taken[:] = [h - n for n, h in zip(need, taken, strict=True)]
    assert sorted(name for group in packed(sizes, nodes).unplaced for name in group.names) == sorted(lost)


def test_a_vm_that_fits_no_node_is_named_with_the_nearest_node() -> None:
    """Though the sums suffice."""
    assert said("nodes: [{name: n, count: 4, cpu: 8, memory: 64Gi}]\nvms: [{name: v, cpu: 0.5, memory: 0.1}]") == [
        "No room for 1 of 1 VMs:",
        "  v: 16 CPUs and 25.6 GiB; no node has as much, the nearest is n-1: 8 CPUs and 64 GiB",
    ]


def test_tainted_nodes_do_not_count() -> None:
    """PreferNoSchedule excludes no node."""
    vms = "vms: [{name: v, cpu: 0.5, memory: 0.1}]"
    tainted = "nodes: [{name: n, count: 4, taints: [{key: dedicated, value: x, effect: NoSchedule}]}]\n"
    assert said(tainted + vms)[0] == "No node takes these VMs: 4 tainted dedicated=x:NoSchedule."
    assert said(tainted.replace("NoSchedule", "PreferNoSchedule") + vms) == ["Every VM finds room."]


def test_vms_that_fit_only_in_sum_are_named_with_the_remaining_capacity() -> None:
    """Three nodes of ten CPUs, five VMs of six."""
    vms = "vms: [{name: v, count: 5, cpu: 0.1875, memory: 0.1}]"
    assert said(f"nodes: [{{name: n, count: 3, cpu: 10}}]\n{vms}") == [
        "No room for 2 of 5 VMs:",
        "  v: 2 of 5, up to 6 CPUs and 25.6 GiB; most is left on n-1: 4 CPUs and 230.4 GiB",
    ]


def test_an_uncertain_refusal_says_that_another_order_may_fit() -> None:
    """Largest first is no proof: 6+4+4 and 5+5+4 fill two nodes of 14."""
    sizes = [Size(cpu, 1) for cpu in (6, 5, 5, 4, 4, 4)]
    packing = packed(sizes, [Size(14, 10, 10), Size(14, 10, 10)])
    assert (len(packing.unplaced[0].names), packing.certain, packing.short) == (1, False, False)
    assert next(fitting(packing, Reading())) == (
        "No room for 1 of 6 VMs, placed one by one, the largest first; another order may do better:"
    )


def test_a_refusal_is_uncertain_if_only_some_vms_fit_no_node_at_all() -> None:
    """0.4 + 0.3 + 0.3 fill both nodes, but largest first places only four of the six."""
    vms = """vms:
  - {name: a, count: 2, cpu: 0.4, memory: 0.01}
  - {name: b, count: 5, cpu: {choice: [{value: 2, weight: 1}, {value: 0.3, weight: 4}]}, memory: 0.01}
"""
    assert said(f"seed: 2\nnodes: [{{name: n, count: 2}}]\n{vms}")[1:3] == [
        "No room for 2 of 7 VMs, placed one by one, the largest first; another order may do better:",
        "  b: 2 of 5, up to 64 CPUs and 2.6 GiB; no node has as much, the nearest is n-1: 32 CPUs and 256 GiB",
    ]


@given(st.lists(SIZES, max_size=5), st.lists(NODES, min_size=1, max_size=2))
def test_no_placement_fits_more_vms_than_a_certain_refusal(sizes: list[Size], nodes: list[Size]) -> None:
    """Against every placement."""
    packing = packed(sizes, nodes)
    placed = len(sizes) - sum(len(group.names) for group in packing.unplaced)
    assert not packing.certain or placed == most_placed(sizes, nodes)


def most_placed(sizes: list[Size], nodes: list[Size]) -> int:
    """Return the maximum number of VMs that any placement fits."""
    best = 0
    for places in product(range(len(nodes) + 1), repeat=len(sizes)):
        inside = [[size for size, place in zip(sizes, places, strict=True) if place == at] for at in range(len(nodes))]
        if all(fits(chosen, free) for chosen, free in zip(inside, nodes, strict=True)):
            best = max(best, sum(map(len, inside)))
    return best


def fits(chosen: list[Size], free: Size) -> bool:
    """Whether a node has the capacity for these together; an overcommitted resource fits only requests of 0."""
    needs = [sum(getattr(size, name) for size in chosen) for name in ("cpu", "memory", "pods")]
    return all(not need or need <= has for need, has in zip(needs, (free.cpu, free.memory, free.pods), strict=True))


def test_a_refusal_is_certain_if_all_other_vms_are_of_one_size() -> None:
    """VMs that fit no node do not matter."""
    packing = packed([Size(9, 1), Size(5, 1), Size(5, 1)], [Size(8, 8, 8)])
    assert (len(packing.unplaced[0].names), packing.certain) == (2, True)


def test_the_number_of_pods_limits_a_node() -> None:
    """The message names a node without free pods."""
    assert said("nodes: [{name: n, pods: 2}]\nvms: [{name: v, count: 3, cpu: 0.1, memory: 0.1}]") == [
        "The VMs request more than these nodes have: without others, some will not run.",
        "No room for 1 of 3 VMs:",
        "  v: 1 of 3, 3.2 CPUs and 25.6 GiB; most is left on n: 25.6 CPUs and 204.8 GiB, but no pod",
    ]


def test_a_demand_is_rounded_as_the_pods_manifest() -> None:
    """Three VMs of 0.3333 fit on a reference node."""
    assert said("nodes: [{name: n}]\nvms: [{name: v, count: 3, cpu: 0.3333, memory: 0.3333}]") == [
        "Every VM finds room."
    ]


def test_nodes_of_the_cluster_count_less_their_used_capacity() -> None:
    """An existing node of the scenario counts as it is; running VMs are not placed again."""
    scenario = read("nodes: [{name: a}]\nvms: [{name: v, count: 3, cpu: 0.5, memory: 0.1}]")
    there = [node("a", "16"), node("b", "32"), node("c", "64", unschedulable=True)]
    used = {"b": Amount(cpu=Decimal(20))}
    packing = pack_fleet(scenario.fleet, there=there, used=used, running={"v-1"})
    assert [group.names for group in packing.unplaced] == [("v-3",)]
    assert packing.barred == {"cordoned": 1}
    assert not pack_fleet(scenario.fleet, there=there, used=used, running={"v-1", "v-2"}).unplaced


def test_a_node_with_unreadable_quantities_is_barred() -> None:
    """Its capacity is unknown."""
    scenario = read("vms: [{name: v, cpu: 0.5, memory: 0.1}]")
    assert next(fitting(pack_fleet(scenario.fleet, there=[node("a", "many")]), Reading())) == (
        "No node takes these VMs: 1 with quantities that cannot be read."
    )


def test_the_policy_decides_which_nodes_accept_vms() -> None:
    """By its tolerations and its node selector."""
    scenario = read(
        "nodes: [{name: n, taints: [{key: a, value: x, effect: NoExecute}]}]\nvms: [{name: v, cpu: 0.1, memory: 0.1}]"
    )
    assert pack_fleet(scenario.fleet).barred == {"tainted a=x:NoExecute": 1}
    default = LauncherPolicy()
    tolerant = LauncherPolicy(tolerations=(*default.tolerations, Toleration("a", "Exists")))
    assert not pack_fleet(scenario.fleet, policy=tolerant).unplaced
    elsewhere = LauncherPolicy(node_selector={"zone": "a"})
    assert pack_fleet(scenario.fleet, policy=elsewhere).barred == {"without the label zone=a": 1}


def test_the_lines_name_the_source_of_the_policy() -> None:
    """The controller's defaults, or the settings that it has published."""
    fleet = read("vms: [{name: v, cpu: 0.1, memory: 0.1}]").fleet
    packing = pack_fleet(fleet, there=[node("a", "8", unschedulable=True)])
    *_, default = fitting(packing, Reading())
    *_, published = fitting(packing, Reading(config_map="ConfigMap a/b"))
    assert default.endswith("this check uses their defaults.")
    assert published.endswith("this check uses those of ConfigMap a/b.")


def test_a_fleet_without_vms_has_no_lines() -> None:
    """One without nodes has a single line."""
    assert said("nodes: [{name: n}]") == []
    assert said("vms: [{name: v, cpu: 0.1, memory: 0.1}]") == ["No node takes these VMs: there is none here."]


def test_packing_compares_few_of_a_thousand_nodes_for_a_vm() -> None:
    """Though most filled nodes lack CPU, memory or both."""
    looks = 0

    class Looked(int):
        __slots__ = ()

        def __le__(self, other: int) -> bool:
            nonlocal looks
            looks += 1
            return int(self) <= other

    def size(index: int) -> Size:
        return Size(Looked(1000 + index * 7919 % 4000), 1000 + index * 104729 % 4000)

    packing = packed([size(index) for index in range(3000)], [Size(10_000, 10_000, 110)] * 1000)
    assert not packing.unplaced
    assert 3000 < looks < 100 * 3000
