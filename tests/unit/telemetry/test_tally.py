"""A histogram's cumulative counts."""

from __future__ import annotations

import pytest

from controller.telemetry.tally import Tally


@pytest.mark.parametrize(
    ("value", "held"),
    [(0.0, [1, 1, 1]), (0.1, [1, 1, 1]), (0.100001, [0, 1, 1]), (5.0, [0, 1, 1]), (5.1, [0, 0, 1])],
)
def test_a_value_counts_in_every_bucket_whose_bound_it_does_not_exceed(value: float, held: list[int]) -> None:
    """`le` means less or equal, and the last bucket counts every value."""
    tally = Tally((0.1, 5.0))
    tally.observe(value)

    assert tally.buckets() == [("0.1", held[0]), ("5.0", held[1]), ("+Inf", held[2])]


def test_observations_add_up() -> None:
    """In the counts and in the sum."""
    tally = Tally((1.0,))
    for value in (0.5, 1.5, 2.0):
        tally.observe(value)

    assert tally.buckets() == [("1.0", 1.0), ("+Inf", 3.0)]
    assert tally.total == 4.0
