"""The pace of moves that share links is max-min fair, and found from the moves that a change concerns."""

from __future__ import annotations

import math
from collections import defaultdict
from random import Random
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.copying.sharing import Link, Transfer, affected, paces

CAPACITY: Final = 1.1625e9
MANY: Final = settings(max_examples=300, deadline=None, derandomize=True, database=None)
NODES: Final = st.sampled_from("abcdef")
CAPS: Final = st.just(math.inf) | st.floats(1e6, 2e9) | st.sampled_from([CAPACITY / 4, CAPACITY / 3, CAPACITY])
TRANSFERS: Final = st.lists(
    st.tuples(NODES, NODES, CAPS).filter(lambda drawn: drawn[0] != drawn[1]), min_size=1, max_size=24
).map(lambda drawn: [Transfer(f"m-{number}", *each) for number, each in enumerate(drawn)])


def by_link(transfers: list[Transfer]) -> dict[Link, list[Transfer]]:
    """Return the transfers on each link."""
    found: dict[Link, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        for link in transfer.links:
            found[link].append(transfer)
    return found


@given(TRANSFERS)
@MANY
def test_no_link_carries_more_than_its_capacity_and_no_move_more_than_its_cap(transfers: list[Transfer]) -> None:
    """Every move has a pace above 0."""
    found = paces(transfers, CAPACITY)
    for here in by_link(transfers).values():
        assert sum(found[transfer.key] for transfer in here) <= CAPACITY * (1 + 1e-9)
    assert all(0 < found[transfer.key] <= transfer.cap for transfer in transfers)


@given(TRANSFERS)
@MANY
def test_no_move_could_get_more_unless_one_with_no_more_than_it_got_less(transfers: list[Transfer]) -> None:
    """It is at its cap, or on a full link on which nobody has more."""
    found = paces(transfers, CAPACITY)
    links = by_link(transfers)
    for transfer in transfers:
        pace = found[transfer.key]
        bottlenecks = [
            link
            for link in transfer.links
            if sum(found[each.key] for each in links[link]) >= CAPACITY * (1 - 1e-9)
            and all(found[each.key] <= pace * (1 + 1e-9) for each in links[link])
        ]
        assert bottlenecks or pace == transfer.cap


@given(TRANSFERS, st.randoms(use_true_random=False))
@MANY
def test_the_order_of_the_moves_does_not_matter(transfers: list[Transfer], random: Random) -> None:
    """Not even in the last bit."""
    shuffled = list(transfers)
    random.shuffle(shuffled)
    assert paces(shuffled, CAPACITY) == paces(transfers, CAPACITY)


@given(TRANSFERS, st.data())
@MANY
def test_the_moves_that_a_change_concerns_have_their_exact_pace_and_all_others_keep_theirs(
    transfers: list[Transfer], data: st.DataObject
) -> None:
    """A move comes, goes, or gets another cap."""
    changed = data.draw(st.sampled_from(transfers))
    others = [transfer for transfer in transfers if transfer is not changed]
    new_cap = Transfer(changed.key, changed.source, changed.target, data.draw(CAPS))
    for before, now in ((others, transfers), (transfers, others), (transfers, [*others, new_cap])):
        links = by_link(now)
        concerned = affected(changed.links, links.__getitem__, CAPACITY)
        after = paces(now, CAPACITY)
        assert paces(concerned, CAPACITY) == {transfer.key: after[transfer.key] for transfer in concerned}
        unconcerned = {transfer.key for transfer in others} - {transfer.key for transfer in concerned}
        kept = paces(before, CAPACITY)
        assert all(after[key] == kept[key] for key in unconcerned)
