"""Whether VMs find room: on nodes that take them, one by one, and not by sums."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.preview import fitting
from controller.domain.capacity import Amount
from controller.domain.vm.launcher import LauncherPolicy, Toleration
from controller.kube.kinds import Node
from controller.scenario.packing import Demand, Packing, Size, Space, pack, pack_fleet
from controller.scenario.scenario import Scenario
from controller.scenario.schema import parse

HEAD = """\
apiVersion: simulation.node-classifier.io/v1alpha1
kind: Scenario
name: demo
"""
SIZES = st.builds(Size, cpu=st.integers(0, 8), memory=st.integers(0, 8), pods=st.just(1))
ROOMS = st.builds(Size, cpu=st.integers(-1, 12), memory=st.integers(-1, 12), pods=st.integers(-1, 4))


def read(text: str) -> Scenario:
    """Read what follows the head."""
    return parse(HEAD + text, "s.yaml", Path("/nowhere"))


def said(text: str) -> list[str]:
    """What a person is told about a scenario."""
    return list(fitting(pack_fleet(read(text).fleet)))


def node(name: str, cpu: str, **spec: object) -> Node:
    """A node of the cluster."""
    allocatable = {"cpu": cpu, "memory": "256Gi", "pods": "110"}
    metadata = {"name": name, "labels": {"type": "kwok"}}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}}, Node)


def packed(sizes: list[Size], rooms: list[Size]) -> Packing:
    """Place VMs of one group."""
    demands = [Demand("g", f"v-{index}", size) for index, size in enumerate(sizes)]
    return pack(demands, [Space(f"n-{index}", room) for index, room in enumerate(rooms)], {})


def fit(sizes: list[Size], rooms: list[Size]) -> bool:
    """Try every way to place VMs."""
    return any(
        all(
            (sum(sizes[vm].cpu for vm in on) <= room.cpu or not any(sizes[vm].cpu for vm in on))
            and (sum(sizes[vm].memory for vm in on) <= room.memory or not any(sizes[vm].memory for vm in on))
            and len(on) <= max(0, room.pods)
            for index, room in enumerate(rooms)
            for on in [[vm for vm, chosen in enumerate(way) if chosen == index]]
        )
        for way in product(range(len(rooms)), repeat=len(sizes))
    )


@given(st.lists(SIZES, max_size=5), st.lists(ROOMS, min_size=1, max_size=3))
def test_a_yes_is_a_way_to_place_them_and_a_proof_is_one(sizes: list[Size], rooms: list[Size]) -> None:
    """Against every way that there is."""
    packing = packed(sizes, rooms)
    found = not packing.homeless
    if found:
        assert fit(sizes, rooms)
    elif packing.certain:
        assert not fit(sizes, rooms)


@given(st.lists(SIZES, max_size=12), st.lists(ROOMS, min_size=1, max_size=6))
def test_each_vm_is_on_the_first_node_that_has_room_the_largest_first(sizes: list[Size], rooms: list[Size]) -> None:
    """As a search through all of them finds it."""
    total = Size(*(sum(getattr(room, name) for room in rooms) for name in ("cpu", "memory", "pods")))
    left = [[room.cpu, room.memory, room.pods] for room in rooms]
    lost = []
    order = sorted(range(len(sizes)), key=lambda vm: (-sizes[vm].excess(total), -sizes[vm].cpu, -sizes[vm].memory))
    for vm in order:
        need = (sizes[vm].cpu, sizes[vm].memory, 1)
        taken = next((has for has in left if all(not n or n <= h for n, h in zip(need, has, strict=True))), None)
        if taken is None:
            lost.append(f"v-{vm}")
        else:
            taken[:] = [h - n for n, h in zip(need, taken, strict=True)]
    assert sorted(name for group in packed(sizes, rooms).homeless for name in group.names) == sorted(lost)


def test_a_vm_that_no_node_can_hold_is_named_with_the_nearest() -> None:
    """Though the sums fit."""
    assert said("nodes: [{name: n, count: 4, cpu: 8, memory: 64Gi}]\nvms: [{name: v, cpu: 0.5, memory: 0.1}]") == [
        "No room for 1 of 1 VMs:",
        "  v: 16 CPUs and 25.6 GiB; no node has as much, the nearest is n-1: 8 CPUs and 64 GiB",
    ]


def test_nodes_whose_taints_keep_vms_away_do_not_count() -> None:
    """With the taint; one that only prefers others does."""
    vms = "vms: [{name: v, cpu: 0.5, memory: 0.1}]"
    tainted = "nodes: [{name: n, count: 4, taints: [{key: dedicated, value: x, effect: NoSchedule}]}]\n"
    assert said(tainted + vms)[0] == "No node takes these VMs: 4 tainted dedicated=x:NoSchedule."
    assert said(tainted.replace("NoSchedule", "PreferNoSchedule") + vms) == ["Every VM finds room."]


def test_vms_that_fit_in_sum_only_are_named_with_what_is_left() -> None:
    """Three nodes of ten CPUs, five VMs of six."""
    vms = "vms: [{name: v, count: 5, cpu: 0.1875, memory: 0.1}]"
    assert said(f"nodes: [{{name: n, count: 3, cpu: 10}}]\n{vms}") == [
        "No room for 2 of 5 VMs:",
        "  v: 2 of 5, up to 6 CPUs and 25.6 GiB; most is left on n-1: 4 CPUs and 230.4 GiB",
    ]


def test_where_another_order_may_do_better_that_is_said() -> None:
    """Largest first is no proof: 6+4+4 and 5+5+4 fill two nodes of 14."""
    sizes = [Size(cpu, 1) for cpu in (6, 5, 5, 4, 4, 4)]
    packing = packed(sizes, [Size(14, 10, 10), Size(14, 10, 10)])
    assert (len(packing.homeless[0].names), packing.certain, packing.short) == (1, False, False)
    assert next(fitting(packing)) == (
        "No room for 1 of 6 VMs, placed one by one, the largest first; another order may do better:"
    )


def test_a_group_of_which_some_fit_no_node_and_others_no_more_is_not_certain() -> None:
    """0.4 + 0.3 + 0.3 fill both nodes, though the largest first find room for four of the six."""
    vms = """vms:
  - {name: a, count: 2, cpu: 0.4, memory: 0.01}
  - {name: b, count: 5, cpu: {choice: [{value: 2, weight: 1}, {value: 0.3, weight: 4}]}, memory: 0.01}
"""
    assert said(f"seed: 2\nnodes: [{{name: n, count: 2}}]\n{vms}")[1:3] == [
        "No room for 2 of 7 VMs, placed one by one, the largest first; another order may do better:",
        "  b: 2 of 5, up to 64 CPUs and 2.6 GiB; no node has as much, the nearest is n-1: 32 CPUs and 256 GiB",
    ]


@given(st.lists(SIZES, max_size=5), st.lists(ROOMS, min_size=1, max_size=2))
def test_no_order_does_better_than_a_refusal_that_is_certain(sizes: list[Size], rooms: list[Size]) -> None:
    """Tried with every way to place them."""
    packing = packed(sizes, rooms)
    placed = len(sizes) - sum(len(group.names) for group in packing.homeless)
    assert not packing.certain or placed == most_placed(sizes, rooms)


def most_placed(sizes: list[Size], rooms: list[Size]) -> int:
    """How many find room at best."""
    best = 0
    for places in product(range(len(rooms) + 1), repeat=len(sizes)):
        inside = [[size for size, place in zip(sizes, places, strict=True) if place == at] for at in range(len(rooms))]
        if all(fits(held, room) for held, room in zip(inside, rooms, strict=True)):
            best = max(best, sum(map(len, inside)))
    return best


def fits(held: list[Size], room: Size) -> bool:
    """Whether a node can hold these together; what is overspent holds those that ask for nothing of it."""
    needs = [sum(getattr(size, name) for size in held) for name in ("cpu", "memory", "pods")]
    return all(not need or need <= has for need, has in zip(needs, (room.cpu, room.memory, room.pods), strict=True))


def test_those_beyond_every_node_leave_the_order_of_the_rest_the_same() -> None:
    """Where the rest is alike."""
    packing = packed([Size(9, 1), Size(5, 1), Size(5, 1)], [Size(8, 8, 8)])
    assert (len(packing.homeless[0].names), packing.certain) == (2, True)


def test_pods_are_room_too() -> None:
    """A node that has none left says so."""
    assert said("nodes: [{name: n, pods: 2}]\nvms: [{name: v, count: 3, cpu: 0.1, memory: 0.1}]") == [
        "The VMs request more than these nodes have: without others, some will not run.",
        "No room for 1 of 3 VMs:",
        "  v: 1 of 3, 3.2 CPUs and 25.6 GiB; most is left on n: 25.6 CPUs and 204.8 GiB, but no pod",
    ]


def test_what_a_pod_asks_for_is_rounded_as_its_manifest_is() -> None:
    """Three VMs of a third fill a reference node."""
    assert said("nodes: [{name: n}]\nvms: [{name: v, count: 3, cpu: 0.3333, memory: 0.3333}]") == [
        "Every VM finds room."
    ]


def test_nodes_of_the_cluster_count_less_what_runs_there() -> None:
    """And a node of the scenario that is there already counts as it is; VMs that run need no place."""
    scenario = read("nodes: [{name: a}]\nvms: [{name: v, count: 3, cpu: 0.5, memory: 0.1}]")
    there = [node("a", "16"), node("b", "32"), node("c", "64", unschedulable=True)]
    used = {"b": Amount(cpu=Decimal(20))}
    packing = pack_fleet(scenario.fleet, there=there, used=used, running={"v-1"})
    assert [group.names for group in packing.homeless] == [("v-3",)]
    assert packing.barred == {"cordoned": 1}
    assert not pack_fleet(scenario.fleet, there=there, used=used, running={"v-1", "v-2"}).homeless


def test_a_node_whose_room_is_unknown_is_counted_apart() -> None:
    """It may have room, or none."""
    scenario = read("vms: [{name: v, cpu: 0.5, memory: 0.1}]")
    assert next(fitting(pack_fleet(scenario.fleet, there=[node("a", "many")]))) == (
        "No node takes these VMs: 1 with quantities that cannot be read."
    )


def test_the_policy_says_which_nodes_take_vms() -> None:
    """A toleration more, another selector."""
    scenario = read(
        "nodes: [{name: n, taints: [{key: a, value: x, effect: NoExecute}]}]\nvms: [{name: v, cpu: 0.1, memory: 0.1}]"
    )
    assert pack_fleet(scenario.fleet).barred == {"tainted a=x:NoExecute": 1}
    default = LauncherPolicy()
    tolerant = LauncherPolicy(tolerations=(*default.tolerations, Toleration("a")))
    assert not pack_fleet(scenario.fleet, policy=tolerant).homeless
    elsewhere = LauncherPolicy(node_selector={"zone": "a"})
    assert pack_fleet(scenario.fleet, policy=elsewhere).barred == {"without the label zone=a": 1}


def test_without_vms_nothing_is_said() -> None:
    """Nor without nodes that they found no room there in spite of them."""
    assert said("nodes: [{name: n}]") == []
    assert said("vms: [{name: v, cpu: 0.1, memory: 0.1}]") == ["No node takes these VMs: there is none here."]


def test_a_vm_looks_at_few_of_a_thousand_nodes() -> None:
    """Though most nodes that are filled have room for neither its CPU nor its memory, or for one of them only."""
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
    assert not packing.homeless
    assert 3000 < looks < 100 * 3000
