"""The pace of moves that share links: who gets what, and whom a change concerns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import pytest

from controller.domain.copying.sharing import Link, Transfer, affected, paces

CAPACITY = 120.0


def transfer(name: str, cap: float = math.inf) -> Transfer:
    """Return a transfer by its nodes: `ab` goes from node a to node b."""
    return Transfer(name, source=name[0], target=name[1], cap=cap)


def on(transfers: Collection[Transfer]) -> Callable[[Link], Collection[Transfer]]:
    """Return a look-up by link."""
    return lambda link: [each for each in transfers if link in each.links]


def test_a_move_alone_has_the_whole_link_up_to_its_cap() -> None:
    """A cap of infinity is none."""
    assert paces([transfer("ab")], CAPACITY) == {"ab": 120.0}
    assert paces([transfer("ab", 50.0)], CAPACITY) == {"ab": 50.0}


def test_moves_from_one_node_share_its_way_out() -> None:
    """Each direction is a link of its own: what comes in does not matter."""
    found = paces([transfer("ab"), transfer("ac"), transfer("ad"), transfer("ea")], CAPACITY)
    assert found == {"ab": 40.0, "ac": 40.0, "ad": 40.0, "ea": 120.0}


def test_moves_to_one_node_share_its_way_in() -> None:
    """Whatever their sources have left."""
    assert paces([transfer("ac"), transfer("bc")], CAPACITY) == {"ac": 60.0, "bc": 60.0}


def test_what_a_capped_move_does_not_use_goes_to_the_others() -> None:
    """In equal parts."""
    found = paces([transfer("ab", 20.0), transfer("ac"), transfer("ad")], CAPACITY)
    assert found == {"ab": 20.0, "ac": 50.0, "ad": 50.0}


def test_what_a_move_cannot_use_because_of_its_other_link_goes_to_the_others() -> None:
    """Three moves come to node z, so that the one from a leaves more of a's way out to the other."""
    found = paces([transfer("az"), transfer("bz"), transfer("cz"), transfer("ay")], CAPACITY)
    assert found == {"az": 40.0, "bz": 40.0, "cz": 40.0, "ay": 80.0}


def test_no_move_has_no_pace() -> None:
    """Nothing to share."""
    assert paces([], CAPACITY) == {}


@pytest.mark.parametrize(
    ("change", "transfers", "expected"),
    [
        ("ab", [transfer("ab"), transfer("ac"), transfer("de")], {"ab", "ac"}),
        ("ab", [transfer("ac"), transfer("de")], {"ac"}),
        ("ab", [transfer("ab"), transfer("ac"), transfer("dc")], {"ab", "ac", "dc"}),
        ("ab", [transfer("ab", 30.0), transfer("ac", 30.0), transfer("dc", 30.0), transfer("ec", 30.0)], {"ab", "ac"}),
        ("ab", [transfer("cb", 10.0), transfer("cd")], {"cb", "cd"}),
    ],
    ids=[
        "the moves of its links",
        "those of a move that has gone",
        "beyond a way in that binds",
        "not beyond one that does not",
        "beyond a way out that binds",
    ],
)
def test_a_change_concerns_the_moves_that_binding_links_join(
    change: str, transfers: list[Transfer], expected: set[str]
) -> None:
    """No others are read."""
    found = affected(transfer(change).links, on(transfers), CAPACITY)
    assert {each.key for each in found} == expected


def test_a_drain_concerns_only_the_moves_of_its_node() -> None:
    """Where each target gets one of them, and other nodes are drained beside it."""
    drains = [
        Transfer(f"{node}-{number}", node, f"target-{node}-{number}") for node in "abcdefgh" for number in range(60)
    ]
    asked: list[Link] = []

    def transfers_on(link: Link) -> Collection[Transfer]:
        asked.append(link)
        return on(drains)(link)

    found = affected(drains[0].links, transfers_on, CAPACITY)
    assert {each.source for each in found} == {"a"}
    assert len(asked) == 2 + 59


def test_caps_that_just_fill_a_link_are_reached_to_the_last_bit() -> None:
    """It does not bind, so nobody's pace depends on rounding: (120 - 13.9 - 31.7) / 2 is less than 37.2 in floats."""
    caps = {"ab": 31.7, "ac": 13.9, "ad": 37.2, "ae": 37.2}
    assert paces([transfer(name, cap) for name, cap in caps.items()], CAPACITY) == caps


def test_whether_a_link_binds_does_not_depend_on_the_order_of_its_moves() -> None:
    """Added up in this order, these caps are more than 120 in floats."""
    caps = {"ab": 34.6, "ac": 43.7, "ad": 34.5, "ae": 7.2}
    assert paces([transfer(name, cap) for name, cap in caps.items()], CAPACITY) == caps
