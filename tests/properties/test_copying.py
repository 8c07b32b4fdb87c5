"""What holds for every move that copies: bytes, downtime and time; more of anything; in pieces or in one.

Not properties, since rounds are whole: the downtime in anything, totals under a ramp, auto-converge's total in the
dirty rate, and more pace for a while.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from controller.domain.copying.advance import advance, finish, forecast
from controller.domain.copying.model import Checkpoint, DowntimeTuning, Fitted, Job, Limits, Mode, Workload, start

SOME: Final = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SLACK: Final = 1 + 1e-9
"""Of rounding."""
WORKLOADS: Final = st.builds(
    Workload,
    memory_in_use=st.floats(1e7, 2e10),
    dirty_rate=st.floats(0, 3e8),
    writable_set=st.floats(0, 5e8),
    jitter=st.just(0.0) | st.floats(0, 0.4),
    seed=st.text("0123456789abcdef-", max_size=8),
)
FITTED: Final = st.builds(
    Fitted, overhead=st.floats(0.05, 1), switch_over=st.floats(0.01, 0.5), first_round_share=st.floats(0.5, 1)
)
TUNING: Final = st.builds(
    DowntimeTuning,
    initial=st.floats(0.01, 0.5),
    ceiling=st.floats(0.5, 2),
    steps=st.integers(1, 10),
    cooldown=st.floats(0.5, 20),
    start_round=st.integers(0, 5),
)
TIMEOUTS: Final = st.floats(10, 200)
FIXED: Final = st.builds(Limits, completion_timeout=TIMEOUTS, max_downtime=st.floats(0.01, 2))
TUNED: Final = st.builds(Limits, completion_timeout=TIMEOUTS, tuning=TUNING)
ANY: Final = st.builds(
    Limits,
    completion_timeout=TIMEOUTS,
    progress_timeout=st.floats(1, 60),
    max_downtime=st.floats(0.01, 1),
    tuning=st.none() | TUNING,
    allow_auto_converge=st.booleans(),
    allow_post_copy=st.booleans(),
    allow_workload_disruption=st.booleans(),
)
PACES: Final = st.floats(2e7, 1.2e9)
MORE: Final = st.floats(1.0, 3.0)


BUSY: Final = st.builds(
    Workload,
    memory_in_use=st.floats(1e7, 3e9),
    dirty_rate=st.floats(1e7, 1e9),
    writable_set=st.floats(1e7, 1e9),
    jitter=st.just(0.0) | st.floats(0, 0.4),
    seed=st.text("0123456789abcdef-", max_size=8),
)
"""Guests of which many do not converge."""


def jobs(
    limits: st.SearchStrategy[Limits], workloads: st.SearchStrategy[Workload] = WORKLOADS
) -> st.SearchStrategy[Job]:
    """Return moves under these limits."""
    return st.builds(Job, workloads, limits, FITTED)


def end_of(job: Job, pace: float) -> Checkpoint:
    """Return the end of a move, which has one."""
    end = finish(job, start(job), pace)
    assert end is not None
    return end


@given(jobs(FIXED | TUNED), PACES)
@SOME
def test_a_pre_copy_that_completes_sends_and_takes_what_its_rounds_say(job: Job, pace: float) -> None:
    """At a constant pace. All moves end."""
    end, limits, fitted = end_of(job, pace), job.limits, job.fitted
    if end.mode is Mode.TIMED_OUT:
        assert end.elapsed == limits.completion_timeout
        return
    assert end.mode is Mode.PRE_COPY_DONE
    limit = limits.max_downtime if limits.tuning is None else limits.tuning.ceiling
    assert end.sent * SLACK >= fitted.first_round_share * job.workload.memory_in_use
    assert fitted.switch_over <= end.downtime * SLACK
    assert end.downtime <= (limit + fitted.switch_over) * SLACK
    total = end.sent / pace + end.round * fitted.overhead + fitted.switch_over
    assert math.isclose(end.elapsed, total, rel_tol=1e-9)


@pytest.mark.parametrize(
    "path", ["workload.dirty_rate", "workload.memory_in_use", "workload.writable_set", "fitted.overhead"]
)
@given(jobs(FIXED), PACES, MORE)
@SOME
def test_with_a_fixed_limit_more_to_copy_never_takes_less(path: str, job: Job, pace: float, more: float) -> None:
    """Neither time nor bytes fall."""
    assert_no_less(easy=end_of(job, pace), hard=end_of(times(job, path, more), pace))


@given(jobs(FIXED), PACES, MORE)
@SOME
def test_with_a_fixed_limit_more_pace_never_takes_longer(job: Job, pace: float, more: float) -> None:
    """Neither time nor bytes rise."""
    assert_no_less(easy=end_of(job, pace * more), hard=end_of(job, pace))


@given(jobs(FIXED), PACES, MORE)
@SOME
def test_a_higher_fixed_limit_never_takes_longer(job: Job, pace: float, more: float) -> None:
    """Neither time nor bytes rise."""
    assert_no_less(easy=end_of(times(job, "limits.max_downtime", more), pace), hard=end_of(job, pace))


@given(jobs(TUNED), PACES)
@SOME
def test_a_ramp_is_never_faster_than_a_fixed_limit_at_its_ceiling(job: Job, pace: float) -> None:
    """Nor does it send less."""
    assert job.limits.tuning is not None
    fixed = Limits(job.limits.completion_timeout, max_downtime=job.limits.tuning.ceiling)
    assert_no_less(easy=end_of(msgspec.structs.replace(job, limits=fixed), pace), hard=end_of(job, pace))


def times(job: Job, path: str, factor: float) -> Job:
    """Return a move with one field multiplied, named `part.field`."""
    part, field = path.split(".")
    before = getattr(job, part)
    after = msgspec.structs.replace(before, **{field: getattr(before, field) * factor})
    return msgspec.structs.replace(job, **{part: after})


def assert_no_less(*, easy: Checkpoint, hard: Checkpoint) -> None:
    """Assert that if the harder of two moves completes, so does the easier one, in no more time, with no more bytes."""
    if hard.mode is Mode.PRE_COPY_DONE:
        assert easy.mode is Mode.PRE_COPY_DONE
        assert easy.elapsed <= hard.elapsed * SLACK
        assert easy.sent <= hard.sent * SLACK


SOMETIMES_NONE: Final = st.one_of(*[PACES] * 6, st.just(0.0))
BYTES: Final = ("round_bytes", "round_sent", "dirtied", "sent")
STRETCHES: Final = st.lists(
    st.tuples(st.floats(0.01, 60), SOMETIMES_NONE, st.lists(st.floats(0, 1), max_size=4)), min_size=1, max_size=8
)
"""Seconds, pace, and shares of the seconds at which the move is looked at."""


@given(jobs(ANY, BUSY), STRETCHES)
@settings(SOME, max_examples=500)
def test_a_move_in_pieces_is_the_whole_one(job: Job, stretches: list[tuple[float, float, list[float]]]) -> None:
    """Whenever a leader looks at it, and whatever its pace was before."""
    whole = pieces = start(job)
    for seconds, pace, cuts in stretches:
        whole = after(job, whole, seconds, pace)
        moments = [0.0, *sorted(seconds * cut for cut in cuts), seconds]
        for since, until in itertools.pairwise(moments):
            pieces = after(job, pieces, until - since, pace)
            assert pieces.valid
    for field, expected in msgspec.structs.asdict(whole).items():
        scale = job.workload.memory_in_use if field in BYTES else 1.0
        assert math.isclose(getattr(pieces, field), expected, rel_tol=1e-9, abs_tol=1e-9 * scale), field


def after(job: Job, at: Checkpoint, seconds: float, pace: float) -> Checkpoint:
    """Return where a move is after some seconds, in as many calls as it takes."""
    while seconds > 0:
        at, seconds = msgspec.structs.astuple(advance(job, at, seconds, pace))
    return at


@given(jobs(ANY, BUSY), PACES, st.floats(0, 100))
@SOME
def test_nothing_is_decided_before_a_forecasts_deadline(job: Job, pace: float, seconds: float) -> None:
    """From any moment; and what is decided then is seen right after it."""
    at = after(job, start(job), seconds, pace)
    assume(not at.ended)
    found = forecast(job, at, pace)
    before = after(job, at, found.deadline * (1 - 1e-9) - 1e-9, pace)
    assert before.mode in (at.mode, Mode.STOP_AND_COPY)
    assert before.hand_over_due == at.hand_over_due
    if found.end is not None:
        then = after(job, at, found.deadline * SLACK + 1e-9, pace)
        assert (then.mode, then.hand_over_due) != (before.mode, before.hand_over_due)


@given(jobs(FIXED), PACES)
@example(Job(Workload(0.0, 0.0, 0.0, jitter=0.15), Limits(100.0)), 1e8)
@SOME
def test_the_steps_agree_with_a_plain_loop_over_rounds(job: Job, pace: float) -> None:
    """Written down anew from the model's description."""
    size, total, rounds = job.fitted.first_round_share * job.workload.memory_in_use, 0.0, 0
    writable, limit = job.workload.writable_set, job.limits.max_downtime
    while rounds == 0 or (size / pace > limit and total <= job.limits.completion_timeout):
        rounds += 1
        seconds = job.fitted.overhead + size / pace
        total += seconds
        size = writable * (1 - math.exp(-job.dirty_rate(rounds, 0) * seconds / writable)) if writable > 0 else 0.0
    total += size / pace + job.fitted.switch_over
    end = end_of(job, pace)
    if total <= job.limits.completion_timeout:
        assert (end.mode, end.round) == (Mode.PRE_COPY_DONE, rounds)
        assert math.isclose(end.elapsed, total, rel_tol=1e-9)
    else:
        assert end.mode is Mode.TIMED_OUT
