"""Distributions and profiles: drawn sizes and played shares follow their definitions."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.scenario import chance
from controller.scenario.distributions import Choice, Fixed, Normal, Uniform, plain
from controller.scenario.profiles import Constant, Curve, Part, Profile, Samples, Sine, Walk, brief

SEEDS = [chance.seed("test", number) for number in range(2000)]


def d(text: str) -> Decimal:
    """Return a decimal."""
    return Decimal(text)


def test_uniform_sizes_fill_their_bounds() -> None:
    """Both bounds are included."""
    drawn = [Uniform(d("0.1"), d("0.1004")).draw(seed) for seed in SEEDS]
    counts = Counter(drawn)
    assert sorted(counts) == [d("0.1"), d("0.1001"), d("0.1002"), d("0.1003"), d("0.1004")]
    assert all(count == pytest.approx(400, rel=0.2) for count in counts.values())


def test_normal_sizes_are_clipped_at_their_bounds() -> None:
    """A size outside becomes the bound; it is not drawn again."""
    drawn = [Normal(d("0.5"), d("0.1"), d("0.4"), d("0.9")).draw(seed) for seed in SEEDS]
    assert min(drawn) == d("0.4")
    assert max(drawn) < d("0.9")
    assert Counter(drawn)[d("0.4")] == pytest.approx(2000 * 0.159, rel=0.2)
    assert sorted(drawn)[1000] == pytest.approx(d("0.5"), abs=d("0.01"))


def test_choices_are_drawn_by_weight() -> None:
    """Three to one."""
    counts = Counter(Choice((d("0.1"), d("0.2")), (d("3"), d("1"))).draw(seed) for seed in SEEDS)
    assert counts[d("0.1")] == pytest.approx(1500, rel=0.1)
    assert counts[d("0.2")] == pytest.approx(500, rel=0.1)


@given(
    low=st.integers(0, 10_000_000),
    span=st.integers(0, 10_000_000),
    off=st.integers(0, 10_000_000),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_size_is_within_bounds_and_has_at_most_four_places(low: int, span: int, off: int, seed: int) -> None:
    """For each distribution."""
    lowest, highest = Decimal(low) / 10000, Decimal(low + span) / 10000
    middle = lowest + Decimal(min(off, span)) / 10000
    for distribution in (
        Uniform(lowest, highest),
        Normal(middle, d("3.3333"), lowest, highest),
        Choice((highest, lowest), (d("0.0001"), d("1000000"))),
        Fixed(middle),
    ):
        size = distribution.draw(seed)
        assert distribution.low <= size <= distribution.high
        assert size == size.quantize(d("0.0001"))


PROFILES: list[Profile] = [
    Constant(d("0.5")),
    Samples((0.0, 10.0, 20.0), (d("0.1"), d("0.9"), d("0.3"))),
    Samples((0.0, 10.0), (d("0.1"), d("0.9")), period=20.0),
    Sine(d("0.5"), d("0.5"), 60.0, phase=0.3, spread=0.7),
    Walk(d("0.5"), d("0.3"), 5.0, d("0.2"), d("0.8")),
    Walk(d("0.5"), d("1000"), 0.001, d("0.5"), d("0.5001")),
]


@given(seconds=st.floats(0, 1e9, allow_nan=False), seed=st.integers(0, 2**64 - 1))
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.describe())
def test_every_share_is_within_bounds_and_reproducible(profile: Profile, seconds: float, seed: int) -> None:
    """At any time, for any seed."""
    share = profile.at(seconds, seed)
    assert profile.low <= share <= profile.high
    assert profile.at(seconds, seed) == share


def test_a_sample_lasts_until_the_next_and_the_last_one_for_ever() -> None:
    """The profile ends at the last one."""
    steps = PROFILES[1]
    assert [steps.at(at, 0) for at in (0.0, 9.9, 10.0, 19.9, 20.0, 1e6)] == [
        d("0.1"), d("0.1"), d("0.9"), d("0.9"), d("0.3"), d("0.3"),
    ]  # fmt: skip
    assert steps.end == 20.0


def test_samples_with_a_period_repeat() -> None:
    """The profile never ends."""
    steps = PROFILES[2]
    assert [steps.at(at, 0) for at in (0.0, 10.0, 20.0, 30.0)] == [d("0.1"), d("0.9"), d("0.1"), d("0.9")]
    assert steps.end is None


def test_a_sine_rises_from_its_mean() -> None:
    """It reaches the crest after a quarter of a period; the phase moves it."""
    wave = Sine(d("0.5"), d("0.4"), 60.0)
    assert [round(wave.at(at, 0), 6) for at in (0.0, 15.0, 30.0, 45.0)] == [d("0.5"), d("0.9"), d("0.5"), d("0.1")]
    assert round(Sine(d("0.5"), d("0.4"), 60.0, phase=0.25).at(0.0, 0), 6) == d("0.9")


def test_the_spread_shifts_each_vm_by_at_most_its_value() -> None:
    """By a random part of the period."""
    wave = Sine(d("0.5"), d("0.5"), 4.0, spread=0.25)
    shares = [wave.at(0.0, seed) for seed in SEEDS]
    assert min(shares) < d("0.51")
    assert max(shares) > d("0.99")
    assert all(share >= d("0.5") for share in shares)


def test_the_steps_of_a_walk_are_independent_and_standard_normal() -> None:
    """Means, deviation and products of adjacent steps."""
    seed = SEEDS[0]
    ways = [chance.walk(seed, step) for step in range(4000)]
    steps = [later - sooner for sooner, later in pairwise(ways)]
    assert mean(steps) == pytest.approx(0, abs=0.08)
    assert stdev(steps) == pytest.approx(1, rel=0.05)
    products = [later * sooner for sooner, later in pairwise(steps)]
    assert mean(products) == pytest.approx(0, abs=0.08)


def test_a_walk_starts_at_its_start_and_is_constant_between_steps() -> None:
    """A step every ten seconds."""
    walk = Walk(d("0.5"), d("0.1"), 10.0, d("0"), d("1"))
    assert walk.at(0.0, 7) == walk.at(9.9, 7) == d("0.5")
    assert walk.at(10.0, 7) != d("0.5")


def test_a_walk_is_reflected_at_its_bounds() -> None:
    """It neither stays at them nor jumps."""
    walk = Walk(d("0.5"), d("0.02"), 1.0, d("0.4"), d("0.6"))
    shares = [walk.at(float(at), 7) for at in range(3000)]
    assert min(shares) < d("0.41")
    assert max(shares) > d("0.59")
    assert max(abs(later - sooner) for sooner, later in pairwise(shares)) < d("0.1")
    assert mean(shares) == pytest.approx(d("0.5"), abs=d("0.03"))


def test_a_part_ends_with_the_later_of_its_curves() -> None:
    """Never if one of them never ends."""
    steps, constant, wave = (Curve(PROFILES[index], d("1"), 0) for index in (1, 0, 3))
    assert Part("v", steps, constant).end == 20.0
    assert Part("v", constant, None).end == 0.0
    assert Part("v", steps, wave).end is None


@given(st.integers(0, 10_000_000))
def test_plain_writes_a_ratio_exactly_with_two_to_four_places(quanta: int) -> None:
    """Without an exponent."""
    text = plain(Decimal(quanta) / 10000)
    whole, _, places = text.partition(".")
    assert whole.isdigit()
    assert 2 <= len(places) <= 4
    assert Decimal(text) * 10000 == quanta


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5s"), (0.0, "0s"), (59.0, "59s"), (90.0, "1m30s"), (5400.0, "1h30m"), (86400.0, "24h")],
)
def test_brief_writes_a_time_in_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    """Fractions of a second as they are."""
    assert brief(seconds) == text
