"""The delays of a loop that talks to the API server."""

from __future__ import annotations

import pytest

from controller.engine.backoff import Backoff
from tests.unit.clock import Clock
from tests.unit.engine.builders import seeded

BASES = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("seed", range(20))
def test_delays_double_from_800_ms_to_30_s_with_as_much_again_at_random(seed: int) -> None:
    """The n-th delay lies in [base, 2 x base) with client-go's bases."""
    clock = Clock()
    backoff = Backoff(clock, seeded(seed))
    for base in BASES:
        delay = backoff.delay()
        assert base <= delay < 2 * base
        clock.now += delay


def test_jitter_spreads_over_its_whole_range() -> None:
    """First delays of many loops come near both ends, so that replicas do not return together."""
    first = [Backoff(Clock(), seeded(seed)).delay() for seed in range(200)]

    assert min(first) < 0.85
    assert max(first) > 1.55


def test_two_quiet_minutes_start_the_delays_over() -> None:
    """Quiet counts from the end of the last delay."""
    clock = Clock()
    backoff = Backoff(clock, seeded())
    for _ in range(6):
        clock.now += backoff.delay()

    clock.now += 120.5

    assert 0.8 <= backoff.delay() < 1.6


def test_less_than_two_quiet_minutes_do_not_start_the_delays_over() -> None:
    """Neither do those minutes that the last delay itself took."""
    clock = Clock()
    backoff = Backoff(clock, seeded())
    for _ in range(3):
        clock.now += backoff.delay()

    clock.now += 119.5
    delay = backoff.delay(at_least=200)
    assert delay == 200
    clock.now += delay

    assert 12.8 <= backoff.delay() < 25.6


def test_a_server_s_retry_after_is_a_floor() -> None:
    """A longer delay of our own stands; a shorter one is raised."""
    backoff = Backoff(Clock(), seeded())

    assert backoff.delay(at_least=7) == 7
    assert 1.6 <= backoff.delay(at_least=0.1) < 3.2
    assert 3.2 <= backoff.delay(at_least=None) < 6.4


def test_a_retry_after_of_a_day_is_not_believed() -> None:
    """It would blind us; five minutes is the most."""
    assert Backoff(Clock(), seeded()).delay(at_least=86400) == 300
