"""Lets a move copy: for some seconds, until the next decision, or to its end.

Guarantees: pure. A move that is advanced in pieces, at whatever moments, ends where it does in one piece. A call of
`advance` or `forecast` takes a bounded number of steps, whether the move converges or not.

A step ends where something changes: a wait or the bytes of a round are over, or KubeVirt decides. In between everything
is closed: bytes are linear in the pace, and what is dirtied does not depend on it.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from controller.domain.copying import decisions
from controller.domain.copying.model import Checkpoint, Job, Mode

STEPS_PER_CALL: Final = 400
"""Steps at most in one call: 200 rounds, in 3 ms of CPU. A move that converges mostly takes fewer than 100."""
MOST_STEPS: Final = 200_000
"""Steps at most of `finish`, in 1.3 s of CPU. With KubeVirt's timeouts, a VM of 256 GiB takes fewer."""

_DONE: Final = {
    Mode.STOP_AND_COPY: Mode.PRE_COPY_DONE,
    Mode.PAUSED: Mode.PAUSED_DONE,
    Mode.POST_COPY: Mode.POST_COPY_DONE,
}


class Advanced(msgspec.Struct, frozen=True):
    """Where a move is, and the seconds that it has not been advanced by: 0, unless more steps are needed."""

    checkpoint: Checkpoint
    seconds_left: float


class Forecast(msgspec.Struct, frozen=True):
    """What happens to a move at a constant pace.

    `deadline`: nothing is decided earlier than in so many seconds: no hand-over, no other mode, no end. Infinity if
    nothing can be sent and no timeout comes. `end`: the last checkpoint, with its seconds and bytes; None if a call's
    steps do not reach it, and then perhaps nothing is decided at the deadline, either.
    """

    deadline: float
    end: Checkpoint | None


def advance(job: Job, at: Checkpoint, seconds: float, pace: float) -> Advanced:
    """Let a move copy for some seconds at a pace (bytes a second, finite).

    A move that has ended stays as it is. Call it again with `seconds_left` if that is above 0.
    """
    for _ in range(STEPS_PER_CALL):
        if at.ended or seconds <= 0:
            return Advanced(at, 0.0)
        at, spent = _step(job, at, seconds, pace)
        seconds -= spent
    return Advanced(at, max(seconds, 0.0))


def forecast(job: Job, at: Checkpoint, pace: float) -> Forecast:
    """Return when something is decided about a move, and its end, at a constant pace (bytes a second)."""
    deadline = math.inf
    now = at
    for _ in range(STEPS_PER_CALL):
        if now.ended:
            break
        before = now
        now, spent = _step(job, before, math.inf, pace)
        if spent == math.inf:
            return Forecast(deadline, None)
        if deadline == math.inf and differs(before, now):
            deadline = now.elapsed - at.elapsed
    return Forecast(min(deadline, now.elapsed - at.elapsed), now if now.ended else None)


def differs(before: Checkpoint, now: Checkpoint) -> bool:
    """Whether something has been decided that is seen outside; that the guest is stopped for a moment is not."""
    return now.hand_over_due != before.hand_over_due or now.mode not in (before.mode, Mode.STOP_AND_COPY)


def finish(job: Job, at: Checkpoint, pace: float) -> Checkpoint | None:
    """Return the end of a move at a constant pace (bytes a second); None if `MOST_STEPS` do not reach it.

    For plans, not for a reconcile: until a VM of 32 GiB that never converges times out, it can cost 0.3 s of CPU.
    """
    for _ in range(MOST_STEPS):
        at, spent = _step(job, at, math.inf, pace)
        if at.ended or spent == math.inf:
            break
    return at if at.ended else None


def _step(job: Job, at: Checkpoint, seconds: float, pace: float) -> tuple[Checkpoint, float]:
    """Return the checkpoint at the next change or after `seconds`, and the seconds until then.

    The same checkpoint and infinity if neither ever comes.
    """
    over = at.wait if at.wait > 0 else _seconds_to_send(at, pace)
    decided = decisions.until(job.limits, at, blocked=over == math.inf)
    spent = min(seconds, over, decided)
    if spent == math.inf:
        return at, spent
    now = _elapse(job, at, spent, pace, over)
    if spent == over:
        now = _wait_over(now) if at.wait > 0 else _sent(job, now, pace)
    mode = decisions.decide(job.limits, now)
    return (now if mode is now.mode else _enter(job, now, mode)), spent


def _seconds_to_send(at: Checkpoint, pace: float) -> float:
    left = at.round_bytes - at.round_sent
    if left <= 0:
        return 0.0
    return left / pace if pace > 0 else math.inf


def _elapse(job: Job, at: Checkpoint, seconds: float, pace: float, over: float) -> Checkpoint:
    """Return the checkpoint after some seconds without a change; after `over` of them the wait or the round is over."""
    sends = at.wait <= 0 and over < math.inf
    left = at.round_bytes - at.round_sent
    sent = (left if seconds == over else pace * seconds) if sends else 0.0
    runs = at.mode is Mode.PRE_COPY or (at.mode is Mode.POST_COPY and at.wait <= 0)
    return msgspec.structs.replace(
        at,
        elapsed=at.elapsed + seconds,
        round_sent=min(at.round_sent + sent, at.round_bytes),
        dirtied=_dirtied(job, at, seconds) if at.mode is Mode.PRE_COPY else 0.0,
        wait=0.0 if sends else at.wait - seconds,
        sent=at.sent + sent,
        downtime=at.downtime if runs else at.downtime + seconds,
    )


def _dirtied(job: Job, at: Checkpoint, seconds: float) -> float:
    """Return the bytes dirtied in the round by then: W·(1 - exp(-D·t/W)), each piece going on from the last."""
    writable = job.workload.writable_set
    if writable <= 0:
        return 0.0
    rate = job.dirty_rate(at.round, at.throttle)
    return at.dirtied - (writable - at.dirtied) * math.expm1(-rate * seconds / writable)


def _wait_over(at: Checkpoint) -> Checkpoint:
    if at.mode in (Mode.PRE_COPY, Mode.POST_COPY):
        return at
    return msgspec.structs.replace(at, mode=_DONE[at.mode])


def _sent(job: Job, at: Checkpoint, pace: float) -> Checkpoint:
    """Return what follows when all bytes of a round have been sent."""
    if at.mode is Mode.POST_COPY:
        return msgspec.structs.replace(at, mode=_DONE[at.mode], round_sent=at.round_bytes)
    if at.mode is not Mode.PRE_COPY:
        return msgspec.structs.replace(at, round_sent=at.round_bytes, wait=job.fitted.switch_over)
    if at.dirtied <= job.limits.downtime(at.ramp_start, at.elapsed) * pace:
        return _enter(job, at, Mode.STOP_AND_COPY)
    throttle, bad_rounds = decisions.throttle(job.limits, at)
    return Checkpoint(
        elapsed=at.elapsed,
        round_bytes=at.dirtied,
        wait=job.fitted.overhead,
        sent=at.sent,
        ramp_start=job.limits.ramp_start(at.round + 1, at.ramp_start, at.elapsed),
        round=at.round + 1,
        throttle=throttle,
        bad_rounds=bad_rounds,
    )


def _enter(job: Job, at: Checkpoint, mode: Mode) -> Checkpoint:
    """Return the beginning of another mode: what the target lacks is one round, without overhead."""
    if mode >= Mode.PRE_COPY_DONE:
        return msgspec.structs.replace(at, mode=mode)
    wait = job.fitted.switch_over if mode is Mode.POST_COPY else 0.0
    return msgspec.structs.replace(at, mode=mode, round_bytes=at.rest, round_sent=0.0, dirtied=0.0, wait=wait)
