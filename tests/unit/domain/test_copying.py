"""How a move copies: rounds, the downtime limit, the switch-over, pause and post-copy, forecasts, checkpoints."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from controller.domain.copying.advance import STEPS_PER_CALL, advance, finish, forecast
from controller.domain.copying.model import (
    Checkpoint,
    DowntimeTuning,
    Fitted,
    Job,
    Limits,
    Mode,
    Workload,
    completion_timeout,
    resume,
    start,
)
from tests.unit.domain.jobs import NEVER_CONVERGES, OVERHEAD, PACE, SWITCH_OVER, after, job


def dirtied(seconds: float, *, rate: float = 10.0, writable_set: float = 200.0) -> float:
    """Return what is dirtied in a time."""
    return writable_set * (1 - math.exp(-rate * seconds / writable_set))


def test_a_round_begins_with_its_overhead_in_which_memory_is_dirtied_and_nothing_is_sent() -> None:
    """Then bytes flow at the pace."""
    waiting = after(job(), 0.2)
    assert (waiting.sent, waiting.dirtied) == pytest.approx((0.0, dirtied(0.2)))
    sending = after(job(), 4.25)
    assert (sending.sent, sending.dirtied) == pytest.approx((400.0, dirtied(4.25)))
    assert sending.rest == pytest.approx(600.0 + dirtied(4.25))


def test_a_round_sends_what_the_one_before_it_dirtied() -> None:
    """And no more is ever dirtied than the writable working set."""
    second = after(job(), 10.3)
    assert (second.round, second.round_bytes, second.sent) == pytest.approx((2, dirtied(10.25), 1000.0))
    busy = after(job(**NEVER_CONVERGES), 10.3)
    assert busy.round_bytes == pytest.approx(500.0)


def test_a_round_that_leaves_as_much_as_the_downtime_limit_allows_is_the_last() -> None:
    """The guest is stopped while the rest is sent, and for the switch-over."""
    end = finish(job(dirty_rate=2.0), start(job(dirty_rate=2.0)), PACE)
    rest = dirtied(10.25, rate=2.0)
    assert end is not None
    assert (end.mode, end.round) == (Mode.PRE_COPY_DONE, 1)
    assert end.downtime == pytest.approx(rest / PACE + SWITCH_OVER)
    assert end.elapsed == pytest.approx(OVERHEAD + 1000.0 / PACE + end.downtime)
    assert end.sent == pytest.approx(1000.0 + rest)
    assert (end.rest, end.hand_over_due, end.aborted) == (0.0, True, False)


def test_a_guest_without_memory_in_use_moves_in_an_overhead_and_a_switch_over() -> None:
    """Nothing divides by its working set."""
    idle = job(memory=0.0, dirty_rate=0.0, writable_set=0.0)
    end = finish(idle, start(idle), PACE)
    assert end is not None
    assert (end.sent, end.elapsed) == (0.0, OVERHEAD + SWITCH_OVER)


def test_a_tuned_downtime_limit_rises_after_each_cooldown_from_the_third_round_on() -> None:
    """Up to its ceiling."""
    subject = job(**NEVER_CONVERGES, tuning=DowntimeTuning(initial=0.1, ceiling=0.4, steps=3, cooldown=20.0))
    third = after(subject, 16.0)
    assert third.round == 3
    assert third.ramp_start == pytest.approx(OVERHEAD + 10.0 + OVERHEAD + 5.0, abs=0.01)
    limits = [subject.limits.downtime(third.ramp_start, third.ramp_start + wait) for wait in (0, 19, 21, 41, 61, 999)]
    assert limits == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert after(subject, 60.0).ramp_start == third.ramp_start
    assert after(subject, 15.0).ramp_start < 0
    assert subject.limits.downtime(-1.0, 15.0) == 0.1


def test_a_move_converges_as_soon_as_the_ramp_allows_its_rest() -> None:
    """5 s here, in the round that is over after the fifth cooldown."""
    subject = job(**NEVER_CONVERGES, tuning=DowntimeTuning(initial=1.0, ceiling=6.0, steps=5, cooldown=10.0))
    end = finish(subject, start(subject), PACE)
    assert end is not None
    assert end.mode is Mode.PRE_COPY_DONE
    assert end.downtime == pytest.approx(5.0 + SWITCH_OVER, abs=0.01)
    assert 40.0 <= end.elapsed - end.downtime - end.ramp_start < 40.0 + 5.0 + OVERHEAD


def test_a_downtime_limit_never_exceeds_its_ceiling() -> None:
    """Not even if it begins above it, as KubeVirt."""
    tuning = DowntimeTuning(initial=0.5, ceiling=0.3)
    assert [tuning.limit(-1.0, 5.0), tuning.limit(0.0, 5.0), tuning.limit(0.0, 500.0)] == [0.3, 0.3, 0.3]


def test_a_ramp_that_starts_with_the_first_round_counts_from_the_beginning() -> None:
    """KubeVirt allows it."""
    assert start(job(tuning=DowntimeTuning(start_round=0))).ramp_start == 0.0


def test_post_copy_hands_over_after_the_switch_over_and_sends_the_rest_afterwards() -> None:
    """Nothing that the guest dirties on the target has to be sent."""
    subject = job(**NEVER_CONVERGES, timeout=30.0, allow_workload_disruption=True, allow_post_copy=True)
    switching = after(subject, 30.1)
    assert (switching.mode, switching.hand_over_due) == (Mode.POST_COPY, False)
    assert switching.downtime == pytest.approx(0.1)
    resumed = after(subject, 30.0 + SWITCH_OVER + 1e-9)
    assert (resumed.hand_over_due, resumed.ended) == (True, False)
    assert resumed.downtime == pytest.approx(SWITCH_OVER)
    end = finish(subject, resumed, PACE)
    assert end is not None
    assert end.mode is Mode.POST_COPY_DONE
    assert end.downtime == pytest.approx(SWITCH_OVER)
    assert end.elapsed == pytest.approx(30.0 + SWITCH_OVER + resumed.rest / PACE)


def test_a_paused_guest_is_down_while_the_rest_is_sent_and_for_the_switch_over() -> None:
    """The rest is what its round has not sent, and what was dirtied in it."""
    subject = job(**NEVER_CONVERGES, timeout=30.0, allow_workload_disruption=True)
    rest = after(subject, 29.999999).rest
    end = finish(subject, start(subject), PACE)
    assert end is not None
    assert (end.mode, end.hand_over_due) == (Mode.PAUSED_DONE, True)
    assert end.downtime == pytest.approx(rest / PACE + SWITCH_OVER, abs=0.001)


def test_a_move_that_has_ended_stays_as_it_is() -> None:
    """Whatever time passes."""
    end = finish(job(), start(job()), PACE)
    assert end is not None
    assert after(job(), 1000.0, at=end) == end


POST_COPY = {"timeout": 30.0, "allow_workload_disruption": True, "allow_post_copy": True}


@pytest.mark.parametrize(
    ("limits", "modes"),
    [
        ({"dirty_rate": 2.0}, [Mode.PRE_COPY_DONE]),
        ({**NEVER_CONVERGES, "timeout": 30.0}, [Mode.TIMED_OUT]),
        ({**NEVER_CONVERGES, **POST_COPY}, [Mode.POST_COPY, Mode.POST_COPY, Mode.POST_COPY_DONE]),
        ({**NEVER_CONVERGES, **POST_COPY, "allow_post_copy": False}, [Mode.PAUSED, Mode.PAUSED_DONE]),
    ],
    ids=["completes", "times out", "post-copy", "paused"],
)
def test_nothing_is_decided_before_a_forecasts_deadline_and_something_then(
    limits: dict[str, Any], modes: list[Mode]
) -> None:
    """Post-copy has two: the switch, and the hand-over right after it."""
    subject = job(**limits)
    at = start(subject)
    for mode in modes:
        deadline = forecast(subject, at, PACE).deadline
        before = after(subject, deadline - 1e-6, at=at)
        assert before.mode in (at.mode, Mode.STOP_AND_COPY)
        assert before.hand_over_due == at.hand_over_due
        at = after(subject, deadline + 1e-9, at=at)
        assert at.mode is mode
    assert at.ended


def test_a_forecast_has_the_end_of_the_move() -> None:
    """With the time until then, and all the bytes."""
    at = after(job(), 3.0)
    end = forecast(job(), at, PACE).end
    assert end is not None
    assert end == finish(job(), at, PACE)


def test_the_forecast_of_a_move_that_nothing_ends_has_no_deadline() -> None:
    """Without bandwidth and without timeouts."""
    subject = job(progress_timeout=0.0)
    assert forecast(subject, start(subject), 0.0) == forecast(subject, after(subject, 99.0, 0.0), 0.0)
    assert forecast(subject, start(subject), 0.0).deadline == math.inf
    assert finish(subject, start(subject), 0.0) is None


def test_post_copy_without_bandwidth_hands_over_and_waits() -> None:
    """The hand-over is a deadline; after it there is none."""
    subject = job(**NEVER_CONVERGES, **POST_COPY)
    switching = after(subject, 30.0 + 1e-9)
    assert forecast(subject, switching, 0.0).deadline == pytest.approx(SWITCH_OVER, abs=1e-6)
    assert forecast(subject, after(subject, 99.0, 0.0, at=switching), 0.0).deadline == math.inf


def test_a_move_that_neither_converges_nor_times_out_has_no_end() -> None:
    """It is not looked for for ever."""
    subject = job(**NEVER_CONVERGES)
    assert finish(subject, start(subject), PACE) is None


def test_a_long_round_is_one_step_whatever_the_progress_timeout() -> None:
    """A move that sends does not come nearer to it."""
    subject = job(memory=1e6, progress_timeout=1.0)
    assert forecast(subject, start(subject), PACE).end is not None


def test_what_a_round_has_sent_is_never_more_than_it_has() -> None:
    """Not by rounding, either: such a checkpoint would not be valid."""
    at = Checkpoint(round_bytes=416.69084448371547, round_sent=85.89907186432546)
    assert after(job(), 5.408159668614824, 61.165311841489086, at=at).valid


def worst() -> Job:
    """Return a move whose rounds are little more than their overhead, 22,000 until it times out."""
    memory = 16 * 2.0**30
    return Job(Workload(memory, 2e9, 1e-5 * memory, jitter=0.15), Limits(22_000 * 0.2515, max_downtime=1e-4))


def test_a_call_takes_a_bounded_number_of_steps_in_the_worst_case() -> None:
    """A round has two: each call comes as far as it may, and none further."""
    subject, at, seconds, calls = worst(), start(worst()), 22_000 * 0.2515, 0
    while seconds > 0:
        rounds = at.round
        at, seconds = msgspec.structs.astuple(advance(subject, at, seconds, 115e6))
        calls += 1
        assert at.round - rounds <= STEPS_PER_CALL // 2
    assert at.mode is Mode.TIMED_OUT
    assert calls == pytest.approx(at.round * 2 / STEPS_PER_CALL, abs=1)
    assert at.round == pytest.approx(22_000, rel=0.03)


def test_a_forecast_ends_at_the_bound_and_says_that_nothing_is_decided_until_then() -> None:
    """So a move that does not converge is looked at again then, not earlier."""
    subject = worst()
    found = forecast(subject, start(subject), 115e6)
    assert found.end is None
    assert found.deadline > 0.25 * (STEPS_PER_CALL // 2 - 1)
    assert after_all(subject, found.deadline).mode is Mode.PRE_COPY


def after_all(subject: Job, seconds: float) -> Checkpoint:
    """Return where a move is after some seconds, in as many calls as it takes."""
    at = start(subject)
    while seconds > 0:
        at, seconds = msgspec.structs.astuple(advance(subject, at, seconds, 115e6))
    return at


def test_the_jitter_of_rounds_has_mean_1_and_its_sigma() -> None:
    """In the logarithm, as lognormal factors have."""
    subject = Job(Workload(1.0, 1.0, 1.0, jitter=0.15, seed="uid"), Limits(0.0))
    factors = [subject.dirty_rate(round_number, 0) for round_number in range(1, 5001)]
    logarithms = [math.log(factor) for factor in factors]
    middle = sum(logarithms) / 5000
    assert sum(factors) / 5000 == pytest.approx(1.0, abs=0.01)
    assert math.sqrt(sum((each - middle) ** 2 for each in logarithms) / 5000) == pytest.approx(0.15, rel=0.05)


def test_the_jitter_is_the_seeds_and_the_rounds() -> None:
    """So that each replica computes the same, and no two moves the same."""
    rates = [
        Job(Workload(1.0, 1.0, 1.0, jitter=0.15, seed=seed), Limits(0.0)).dirty_rate(round_number, 0)
        for seed, round_number in (("a", 1), ("a", 1), ("a", 2), ("b", 1))
    ]
    assert rates[0] == rates[1]
    assert len(set(rates)) == 3


def test_the_completion_timeout_counts_decimal_gigabytes_rounded_up() -> None:
    """As KubeVirt's: 16 GiB are 18 of them."""
    assert completion_timeout(16 * 2.0**30) == 2700.0
    assert completion_timeout(1e9, per_gib=20.0) == 20.0


def test_a_checkpoint_is_eight_numbers_and_four_integers_and_json_keeps_it() -> None:
    """In the middle of anything."""
    at = after(job(**NEVER_CONVERGES, allow_auto_converge=True, tuning=DowntimeTuning()), 77.7)
    assert [type(value) for value in msgspec.structs.astuple(at)] == [float] * 8 + [Mode, int, int, int]
    assert msgspec.json.decode(msgspec.json.encode(at), type=Checkpoint) == at


@pytest.mark.parametrize(
    "changes",
    [
        {"elapsed": -1.0},
        {"round_sent": 2000.0},
        {"sent": math.inf},
        {"wait": math.nan},
        {"round": 0},
        {"throttle": 100},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_move_whose_checkpoint_cannot_be_one_begins_anew(changes: dict[str, Any]) -> None:
    """As one without; any other is gone on from."""
    recorded = after(job(), 5.0)
    assert resume(job(), recorded) == recorded
    assert resume(job(), None) == start(job())
    assert resume(job(), msgspec.structs.replace(recorded, **changes)) == start(job())


def test_the_fitted_constants_are_the_defaults() -> None:
    """A job needs none of its own."""
    assert start(Job(Workload(1000.0, 0.0, 0.0, jitter=0.15), Limits(0.0))).round_bytes == 885.0
    assert Job(Workload(1000.0, 0.0, 0.0, jitter=0.15), Limits(0.0)).fitted == Fitted(0.25, 0.12, 0.885)
