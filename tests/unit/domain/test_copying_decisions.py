"""KubeVirt's decisions about a slow move, in its order, and QEMU's throttling."""

from __future__ import annotations

import msgspec
import pytest

from controller.domain.copying.advance import finish
from controller.domain.copying.decisions import decide, throttle
from controller.domain.copying.model import Checkpoint, Limits, Mode, start
from tests.unit.domain.jobs import NEVER_CONVERGES, PACE, after, job

LATE = Checkpoint(elapsed=100.0, round=9)
LATE_AND_STUCK = msgspec.structs.replace(LATE, wait=-150.0)
HELPED = Limits(100.0, allow_workload_disruption=True)


def test_post_copy_is_never_aborted() -> None:
    """Neither for being late nor for being stuck: the VM's memory is on both nodes."""
    at = msgspec.structs.replace(LATE_AND_STUCK, elapsed=1e6, mode=Mode.POST_COPY)
    assert decide(Limits(100.0), at) is Mode.POST_COPY
    subject = job(**NEVER_CONVERGES, timeout=30.0, allow_workload_disruption=True, allow_post_copy=True)
    assert after(subject, 1e6, 0.0, at=after(subject, 31.0)).mode is Mode.POST_COPY


def test_a_late_move_becomes_post_copy_where_that_and_disruption_are_allowed() -> None:
    """Not before it is late."""
    limits = msgspec.structs.replace(HELPED, allow_post_copy=True)
    assert decide(limits, LATE) is Mode.POST_COPY
    assert decide(limits, msgspec.structs.replace(LATE, elapsed=99.9)) is Mode.PRE_COPY


def test_a_late_moves_guest_is_paused_where_disruption_is_allowed_and_post_copy_is_not() -> None:
    """Also in its last round."""
    assert decide(HELPED, LATE) is Mode.PAUSED
    assert decide(HELPED, msgspec.structs.replace(LATE, mode=Mode.STOP_AND_COPY)) is Mode.PAUSED


def test_post_copy_needs_that_disruption_is_allowed() -> None:
    """Alone it changes nothing."""
    assert decide(Limits(100.0, allow_post_copy=True), LATE) is Mode.TIMED_OUT


def test_a_late_move_that_is_stuck_is_helped_rather_than_aborted() -> None:
    """Help comes first in KubeVirt's order."""
    assert decide(HELPED, LATE_AND_STUCK) is Mode.PAUSED


def test_a_move_that_is_late_and_stuck_is_aborted_for_being_stuck() -> None:
    """The progress timeout comes second."""
    assert decide(Limits(100.0), LATE_AND_STUCK) is Mode.STUCK
    assert decide(HELPED, msgspec.structs.replace(LATE_AND_STUCK, mode=Mode.PAUSED)) is Mode.STUCK


def test_a_late_move_that_may_not_be_helped_is_aborted() -> None:
    """The completion timeout comes last."""
    assert decide(Limits(100.0), LATE) is Mode.TIMED_OUT


def test_a_timeout_that_has_already_passed_is_decided_at_once() -> None:
    """A controller may be restarted with shorter ones."""
    at = after(job(**NEVER_CONVERGES, timeout=300.0), 20.0)
    late = after(job(**NEVER_CONVERGES, timeout=10.0), 1.0, at=at)
    assert (late.mode, late.elapsed) == (Mode.TIMED_OUT, 20.0)


def test_a_pause_doubles_the_completion_timeout() -> None:
    """After that it is aborted, and not paused again."""
    at = msgspec.structs.replace(LATE, mode=Mode.PAUSED)
    assert decide(HELPED, msgspec.structs.replace(at, elapsed=199.9)) is Mode.PAUSED
    assert decide(HELPED, msgspec.structs.replace(at, elapsed=200.0)) is Mode.TIMED_OUT


def test_a_paused_move_that_crawls_is_aborted_at_twice_the_timeout() -> None:
    """The VM goes on at its source: nothing is handed over."""
    subject = job(**NEVER_CONVERGES, timeout=30.0, allow_workload_disruption=True)
    end = finish(subject, after(subject, 30.0), 0.1)
    assert end is not None
    assert (end.mode, end.elapsed, end.hand_over_due) == (Mode.TIMED_OUT, 60.0, False)


def test_what_has_ended_is_not_decided_again() -> None:
    """Though it may be late by now."""
    at = msgspec.structs.replace(LATE, elapsed=1e6, mode=Mode.PRE_COPY_DONE)
    assert decide(HELPED, at) is Mode.PRE_COPY_DONE


@pytest.mark.parametrize("mode", [Mode.PRE_COPY, Mode.STOP_AND_COPY, Mode.PAUSED])
def test_a_move_that_can_send_nothing_for_the_progress_timeout_is_stuck(mode: Mode) -> None:
    """In any mode but post-copy; the time in pieces counts as one."""
    at = Checkpoint(round_bytes=1000.0, mode=mode)
    subject = job(progress_timeout=20.0)
    waiting = after(subject, 12.0, 0.0, at=at)
    assert waiting.mode is mode
    assert after(subject, 7.9, 0.0, at=waiting).mode is mode
    assert after(subject, 8.1, 0.0, at=waiting).mode is Mode.STUCK


def test_bytes_that_flow_again_end_the_progress_timeout() -> None:
    """A rest that falls, however slowly, is progress."""
    subject = job(progress_timeout=20.0)
    at = after(subject, 19.0, 0.0)
    for pace in (1e-3, 0.0):
        at = after(subject, 19.0, pace, at=at)
        assert at.mode is Mode.PRE_COPY


def test_a_move_that_does_not_converge_is_not_stuck() -> None:
    """Within each round the rest falls, as KubeVirt sees it."""
    subject = job(**NEVER_CONVERGES, timeout=300.0, progress_timeout=20.0)
    assert after(subject, 400.0).mode is Mode.TIMED_OUT


def test_a_timeout_of_zero_never_comes() -> None:
    """As in KubeVirt."""
    at = msgspec.structs.replace(LATE_AND_STUCK, elapsed=1e9, wait=-1e9)
    assert decide(Limits(0.0, progress_timeout=0.0), at) is Mode.PRE_COPY


AUTO = Limits(100.0, allow_auto_converge=True)
BAD = Checkpoint(round_bytes=1000.0, dirtied=501.0)


def test_auto_converge_takes_20_per_cent_and_then_10_more_for_each_two_bad_rounds() -> None:
    """At most 99."""
    steps = []
    at = BAD
    for _ in range(20):
        taken, counted = throttle(AUTO, at)
        at = msgspec.structs.replace(at, throttle=taken, bad_rounds=counted)
        steps.append(taken)
    assert steps == [0, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60, 70, 70, 80, 80, 90, 90, 99, 99, 99]


@pytest.mark.parametrize(
    ("limits", "dirtied", "bad_rounds"),
    [(AUTO, 501.0, 1), (AUTO, 500.0, 0), (Limits(100.0), 501.0, 0)],
    ids=["more than half", "half", "not allowed"],
)
def test_a_round_is_bad_if_more_than_half_of_what_it_sent_was_dirtied(
    limits: Limits, dirtied: float, bad_rounds: int
) -> None:
    """Others do not count, and do not reset the count."""
    assert throttle(limits, msgspec.structs.replace(BAD, dirtied=dirtied)) == (0, bad_rounds)
    counted = msgspec.structs.replace(BAD, dirtied=0.0, throttle=30, bad_rounds=1)
    assert throttle(limits, counted) == (30, 1)


def test_a_throttled_guest_dirties_less_until_it_converges() -> None:
    """Which it does not without."""
    subject = job(dirty_rate=100.0, writable_set=900.0, timeout=400.0, allow_auto_converge=True)
    end = finish(subject, start(subject), PACE)
    assert end is not None
    assert (end.mode, end.throttle > 0) == (Mode.PRE_COPY_DONE, True)
    assert subject.dirty_rate(1, 30) == pytest.approx(70.0)
    without = job(dirty_rate=100.0, writable_set=900.0, timeout=400.0)
    assert after(without, 400.0).mode is Mode.TIMED_OUT
