"""How long a failed key waits."""

from __future__ import annotations

import pytest

from controller.engine.ratelimit import Bucket, DefaultLimiter, ItemExponential
from tests.unit.clock import Clock
from tests.unit.engine.builders import seeded


def test_each_failure_doubles_the_delay_up_to_the_cap() -> None:
    """The n-th failure waits 5 ms times 2 to the n, and never more than 1000 s."""
    limiter = ItemExponential(seeded(), jitter=0.0)

    delays = [limiter.when("a") for _ in range(100)]

    assert delays[:18] == pytest.approx([0.005 * 2**n for n in range(18)])
    assert delays[17] == pytest.approx(655.36)
    assert delays[18:] == [1000.0] * 82


def test_forget_starts_the_delays_over() -> None:
    """A key that succeeded waits 5 ms at its next failure, and counts none before it."""
    limiter = ItemExponential(seeded(), jitter=0.0)
    for _ in range(7):
        limiter.when("a")
    assert limiter.failures("a") == 7

    limiter.forget("a")

    assert limiter.failures("a") == 0
    assert limiter.when("a") == pytest.approx(0.005)


def test_keys_fail_independently() -> None:
    """One key's failures lengthen no other key's delay."""
    limiter = ItemExponential(seeded(), jitter=0.0)
    for _ in range(7):
        limiter.when("a")

    assert limiter.when("b") == pytest.approx(0.005)
    assert (limiter.failures("a"), limiter.failures("b"), limiter.failures("c")) == (7, 1, 0)


def test_forgetting_an_unknown_key_is_harmless() -> None:
    """Success of a key that never failed changes nothing."""
    limiter = ItemExponential(seeded())

    limiter.forget("a")

    assert limiter.failures("a") == 0


def test_jitter_adds_at_most_its_fraction_and_never_passes_the_cap() -> None:
    """Delays lie in [delay, delay x 1.1], differ between keys, and stay within 1000 s."""
    limiter = ItemExponential(seeded(), jitter=0.1)
    first = [limiter.when(key) for key in range(200)]
    assert all(0.005 <= delay <= 0.0055 for delay in first)
    assert len(set(first)) > 190
    assert max(first) > 0.0054

    later = [limiter.when("a") for _ in range(60)]
    assert all(0.005 * 2**n <= delay <= 0.0055 * 2**n for n, delay in enumerate(later[:17]))
    assert all(655.36 <= delay <= 1000.0 for delay in later[17:])


def test_the_bucket_gives_its_burst_and_then_ten_a_second() -> None:
    """The first 100 reservations cost nothing; each further one lies 0.1 s later in the future."""
    bucket = Bucket(Clock())

    delays = [bucket.reserve() for _ in range(120)]

    assert delays[:100] == [0.0] * 100
    assert delays[100:] == pytest.approx([0.1 * (n + 1) for n in range(20)])


def test_reservations_are_paid_back_before_new_tokens_are_given() -> None:
    """Tokens reserved in the future stay taken: time that passes pays for those first."""
    clock = Clock()
    bucket = Bucket(clock)
    for _ in range(120):
        bucket.reserve()

    clock.now = 1.0

    assert bucket.reserve() == pytest.approx(1.1)


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """A day of quiet buys a burst of 100, not more."""
    clock = Clock()
    bucket = Bucket(clock)
    for _ in range(100):
        bucket.reserve()
    clock.now = 86_400.0

    delays = [bucket.reserve() for _ in range(101)]

    assert delays[:100] == [0.0] * 100
    assert delays[100] == pytest.approx(0.1)


def test_the_longer_of_both_limiters_decides() -> None:
    """While the bucket has tokens the key's own backoff decides; when it is empty, the bucket does."""
    limiter = DefaultLimiter(ItemExponential(seeded(), jitter=0.0), Bucket(Clock()))

    assert limiter.when("slow") == pytest.approx(0.005)
    assert limiter.when("slow") == pytest.approx(0.010)
    for key in range(98):
        limiter.when(key)
    assert limiter.when("fresh") == pytest.approx(0.1)
    assert limiter.failures("slow") == 2
    limiter.forget("slow")
    assert limiter.failures("slow") == 0
