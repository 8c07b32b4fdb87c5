"""Packing: whether VMs fit on the nodes that accept them, placed one by one and not by sums."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from controller.cli.preview import fitting
from controller.operations.settings import Reading
from controller.scenario.free import Size
from controller.scenario.packing import Demand, Packing, Reach, Space, pack

SIZES = st.builds(Size, cpu=st.integers(0, 8), memory=st.integers(0, 8), pods=st.just(1))
NODES = st.builds(Size, cpu=st.integers(-1, 12), memory=st.integers(-1, 12), pods=st.integers(-1, 4))


def packed(sizes: list[Size], nodes: list[Size], reaches: Sequence[tuple[int, ...]] = ()) -> Packing:
    """Place VMs of one group: each has the reach of its number, in turn; all nodes if there are no reaches."""
    reaches = reaches or [tuple(range(len(nodes)))]
    demands = [Demand("g", f"v-{index}", size, index % len(reaches)) for index, size in enumerate(sizes)]
    spaces = [Space(f"n-{index}", free) for index, free in enumerate(nodes)]
    return pack(demands, spaces, [Reach(reach) for reach in reaches])


def lost(packing: Packing) -> int:
    """Return how many VMs found no room."""
    return sum(len(group.names) for group in packing.unplaced)


def most_placed(sizes: list[Size], nodes: list[Size], reaches: Sequence[tuple[int, ...]]) -> int:
    """Return the maximum number of VMs that any placement fits, by trying each."""
    best = 0
    ways = [(None, *reaches[vm % len(reaches)]) for vm in range(len(sizes))]
    for places in product(*ways):
        inside = [[size for size, place in zip(sizes, places, strict=True) if place == at] for at in range(len(nodes))]
        if all(fits(chosen, free) for chosen, free in zip(inside, nodes, strict=True)):
            best = max(best, sum(map(len, inside)))
    return best


def fits(chosen: list[Size], free: Size) -> bool:
    """Whether a node has the capacity for these together; an overcommitted resource fits only requests of 0."""
    needs = [sum(getattr(size, name) for size in chosen) for name in ("cpu", "memory", "pods")]
    return all(not need or need <= has for need, has in zip(needs, (free.cpu, free.memory, free.pods), strict=True))


# Any sets of three nodes.
REACHES = st.lists(st.sets(st.integers(0, 2)).map(lambda nodes: tuple(sorted(nodes))), min_size=1, max_size=3)


@given(st.lists(SIZES, max_size=5), st.lists(NODES, min_size=3, max_size=3), REACHES)
def test_all_vms_are_placed_only_if_a_placement_exists_and_a_certain_number_is_right(
    sizes: list[Size], nodes: list[Size], reaches: list[tuple[int, ...]]
) -> None:
    """Against every placement on the nodes that each VM may use."""
    packing = packed(sizes, nodes, reaches)
    most = most_placed(sizes, nodes, reaches)
    assert len(sizes) - lost(packing) <= most
    assert not packing.certain or len(sizes) - lost(packing) == most


@given(st.lists(SIZES, max_size=12), st.lists(NODES, min_size=3, max_size=6), REACHES)
def test_packing_is_first_fit_decreasing_for_each_number_of_nodes(
    sizes: list[Size], nodes: list[Size], reaches: list[tuple[int, ...]]
) -> None:
    """Equal to a linear scan of the nodes, by VMs with the fewest nodes first."""
    used = {node for vm in range(len(sizes)) for node in reaches[vm % len(reaches)]}
    total = Size(*(sum(getattr(nodes[node], name) for node in used) for name in ("cpu", "memory", "pods")))
    left = [[free.cpu, free.memory, free.pods] for free in nodes]
    unplaced: list[str] = []
    first: dict[tuple[int, Size], int] = {}

    def order(vm: int) -> tuple[int, float, int, int, int]:
        which, size = vm % len(reaches), sizes[vm]
        alike = first.setdefault((which, size), vm)
        return len(reaches[which]), -size.excess(total), -size.cpu, -size.memory, alike

    for vm in sorted(range(len(sizes)), key=order):
        need, reach = (sizes[vm].cpu, sizes[vm].memory, 1), reaches[vm % len(reaches)]
        there = [left[node] for node in reach]
        taken = next((has for has in there if all(not n or n <= h for n, h in zip(need, has, strict=True))), None)
        if taken is None:
            unplaced.append(f"v-{vm}")
        else:
            taken[:] = [h - n for n, h in zip(need, taken, strict=True)]
    assert sorted(name for group in packed(sizes, nodes, reaches).unplaced for name in group.names) == sorted(unplaced)


def test_an_uncertain_refusal_says_that_another_order_may_fit() -> None:
    """Largest first is no proof: 6+4+4 and 5+5+4 fill two nodes of 14."""
    sizes = [Size(cpu, 1) for cpu in (6, 5, 5, 4, 4, 4)]
    packing = packed(sizes, [Size(14, 10, 10), Size(14, 10, 10)])
    assert (len(packing.unplaced[0].names), packing.certain, packing.short) == (1, False, False)
    assert next(fitting(packing, {None: Reading()})) == (
        "No room for 1 of 6 VMs, placed one by one, the largest first; another order may do better:"
    )


def test_a_refusal_is_certain_if_all_other_vms_are_of_one_size() -> None:
    """VMs that fit no node do not matter."""
    packing = packed([Size(9, 1), Size(5, 1), Size(5, 1)], [Size(8, 8, 8)])
    assert (len(packing.unplaced[0].names), packing.certain) == (2, True)


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


def test_vms_with_the_fewest_nodes_are_placed_first() -> None:
    """A larger VM that may use every node leaves them the only one that they may use."""
    assert not packed([Size(8, 1), Size(6, 1)], [Size(8, 8, 8), Size(8, 8, 8)], [(0, 1), (0,)]).unplaced


def test_a_refusal_is_certain_if_no_other_vms_may_use_these_nodes() -> None:
    """VMs of several sizes on other nodes do not matter."""
    nodes, reaches = [Size(8, 8, 8), Size(8, 8, 8)], [(0,), (1,)]
    alike = packed([Size(5, 1), Size(3, 1), Size(5, 1), Size(4, 1)], nodes, reaches)
    assert (alike.unplaced[0].names, alike.certain) == (("v-2",), True)
    mixed = packed([Size(5, 1), Size(3, 1), Size(6, 1), Size(4, 1)], nodes, reaches)
    assert (mixed.unplaced[0].names, mixed.certain) == (("v-0",), False)


def test_packing_compares_few_nodes_for_a_vm_of_many_groups() -> None:
    """A hundred of them, each of which may use all nodes but one."""
    looks = 0

    class Looked(int):
        __slots__ = ()

        def __le__(self, other: int) -> bool:
            nonlocal looks
            looks += 1
            return int(self) <= other

    sets = [tuple(node for node in range(350) if node != without) for without in range(100)]
    sizes = [Size(Looked(1000 + index * 7919 % 4000), 1000 + index * 104729 % 4000) for index in range(2000)]
    assert not packed(sizes, [Size(20_000, 20_000, 110)] * 350, sets).unplaced
    assert 2000 < looks < 100 * 2000
