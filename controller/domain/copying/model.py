"""What one live migration copies, under which limits, and how far it is.

Guarantees: values only. A job, a checkpoint and the pace are all that the next step depends on. A checkpoint has
neither infinity nor NaN, and JSON keeps its floats exactly, so a status can hold it.

Units: seconds are simulated ones, rates are bytes a second.
"""

from __future__ import annotations

import math
from enum import IntEnum
from hashlib import blake2b
from statistics import NormalDist
from typing import Final

import msgspec

from controller.domain.copying import constants
from controller.kube.meta import Value

_GB: Final = 10**9
LARGEST: Final = 2.0**63
"""Bytes, bytes a second or seconds: more than any move has, and few enough to compute with."""
_NOT_STARTED: Final = -1.0
_BITS: Final = 52
"""Bits of a hash that make a float: with another half, a float's 53 are all used."""
_NORMAL: Final = NormalDist()


class Workload(Value, frozen=True):
    """The guest: memory in use and writable working set in bytes, the dirty rate in bytes a second.

    `jitter` is σ of a lognormal factor with mean 1 on the dirty rate of each round, drawn from a hash of `seed` (the
    migration's UID) and the round; 0 means none.
    """

    memory_in_use: float
    dirty_rate: float
    writable_set: float
    jitter: float
    seed: str = ""


class DowntimeTuning(Value, frozen=True, omit_defaults=False):
    """KubeVirt's `downtimeTuning`: the downtime limit rises from `initial` to `ceiling` in `steps` equal increments.

    The first comes `cooldown` seconds after the start of round `start_round`. Times are in seconds. The defaults are
    KubeVirt's, whose ceiling is `maxDowntimeMs`; `steps` and `cooldown` are above 0.
    """

    initial: float = 0.15
    ceiling: float = 0.9
    steps: int = 7
    cooldown: float = 10.0
    start_round: int = 3

    def limit(self, ramp_start: float, elapsed: float) -> float:
        """Return the downtime limit in seconds; `ramp_start` below zero: before the ramp."""
        lowest = min(self.initial, self.ceiling)
        increments = (elapsed - ramp_start) // self.cooldown if ramp_start >= 0 else 0
        return min(lowest + increments * (self.ceiling - lowest) / self.steps, self.ceiling)


class Limits(Value, frozen=True, omit_defaults=False):
    """What KubeVirt allows a move. Times are in seconds; a timeout of 0 never comes, as in KubeVirt.

    `max_downtime` holds where there is no `tuning`. Post-copy needs `allow_workload_disruption`, too.
    """

    completion_timeout: float
    progress_timeout: float = constants.PROGRESS_TIMEOUT
    max_downtime: float = constants.MAX_DOWNTIME
    tuning: DowntimeTuning | None = None
    allow_auto_converge: bool = False
    allow_post_copy: bool = False
    allow_workload_disruption: bool = False

    def downtime(self, ramp_start: float, elapsed: float) -> float:
        """Return the downtime limit in seconds at a moment; a `ramp_start` below zero has not come yet."""
        return self.max_downtime if self.tuning is None else self.tuning.limit(ramp_start, elapsed)

    def ramp_start(self, round_number: int, ramp_start: float, elapsed: float) -> float:
        """Return when the ramp began or begins: with the start of a round, now; negative: later, or never."""
        if self.tuning is None or ramp_start >= 0 or round_number < self.tuning.start_round:
            return ramp_start
        return elapsed


def completion_timeout(memory_bytes: float, per_gib: float = constants.COMPLETION_TIMEOUT_PER_GIB) -> float:
    """Return KubeVirt's completion timeout in seconds: by the memory a VM has, in decimal GB rounded up."""
    return per_gib * math.ceil(memory_bytes / _GB)


class Fitted(msgspec.Struct, frozen=True, gc=False):
    """The fitted constants that a move depends on (see `constants`); `switch_over` is above 0."""

    overhead: float = constants.ROUND_OVERHEAD
    switch_over: float = constants.SWITCH_OVER
    first_round_share: float = constants.FIRST_ROUND_SHARE


class Job(msgspec.Struct, frozen=True, gc=False):
    """One live migration's copying: all that stays the same while it copies."""

    workload: Workload
    limits: Limits
    fitted: Fitted = Fitted()

    def dirty_rate(self, round_number: int, throttle: int) -> float:
        """Return the dirty rate of a round in bytes a second, for a guest throttled by some per cent of its CPU."""
        return self.workload.dirty_rate * _jitter(self.workload, round_number) * (1 - throttle / 100)


class Mode(IntEnum):
    """What a move does: copy, or nothing any more, since it has completed or has to be aborted."""

    PRE_COPY = 0
    STOP_AND_COPY = 1
    """The rest fits the downtime limit: the guest is stopped, the rest is sent."""
    PAUSED = 2
    """The guest is stopped although the rest does not fit the downtime limit."""
    POST_COPY = 3
    """The guest is resumed on the target, the rest follows."""
    PRE_COPY_DONE = 4
    PAUSED_DONE = 5
    POST_COPY_DONE = 6
    STUCK = 7
    """Nothing could be sent for the progress timeout."""
    TIMED_OUT = 8
    """The completion timeout has passed."""


class Checkpoint(Value, frozen=True, omit_defaults=False):
    """How far a move is: eight numbers (seconds and bytes) and four integers. Each round's figures are its own.

    All are written each time: a merge patch leaves a field that is left out as it was.

    `wait`: seconds left of the round's overhead or of the switch-over; negative: for how long nothing could be sent.
    `sent`: bytes in all. `ramp_start`: when the downtime limit's ramp began; negative: it has not.
    `downtime`: for how long the guest has been stopped. `throttle`: per cent of the guest's CPU taken away.
    `bad_rounds`: rounds counted towards the next throttling.
    """

    elapsed: float = 0.0
    round_bytes: float = 0.0
    round_sent: float = 0.0
    dirtied: float = 0.0
    wait: float = 0.0
    sent: float = 0.0
    ramp_start: float = _NOT_STARTED
    downtime: float = 0.0
    mode: Mode = Mode.PRE_COPY
    round: int = 1
    throttle: int = 0
    bad_rounds: int = 0

    @property
    def rest(self) -> float:
        """Bytes that the target lacks."""
        return self.round_bytes - self.round_sent + self.dirtied

    @property
    def ended(self) -> bool:
        """Whether it has completed or has to be aborted."""
        return self.mode >= Mode.PRE_COPY_DONE

    @property
    def aborted(self) -> bool:
        """Whether it has to be aborted."""
        return self.mode >= Mode.STUCK

    @property
    def hand_over_due(self) -> bool:
        """Whether the VM may be handed over to the target: copied whole, or resumed there for post-copy."""
        resumed = self.mode is Mode.POST_COPY and self.wait <= 0
        return resumed or (self.ended and not self.aborted)

    @property
    def valid(self) -> bool:
        """Whether the figures can be those of a move; false for a status that another client has edited."""
        numbers = (self.elapsed, self.round_bytes, self.round_sent, self.dirtied, self.sent, self.downtime)
        finite = all(abs(number) <= LARGEST for number in (*numbers, self.wait, self.ramp_start))
        counted = self.round >= 1 and self.bad_rounds >= 0 and 0 <= self.throttle <= constants.MOST_THROTTLE
        return finite and counted and min(numbers) >= 0 and self.round_sent <= self.round_bytes


def start(job: Job) -> Checkpoint:
    """Return the checkpoint of a move that begins to copy."""
    first = job.fitted.first_round_share * job.workload.memory_in_use
    return Checkpoint(
        round_bytes=first, wait=job.fitted.overhead, ramp_start=job.limits.ramp_start(1, _NOT_STARTED, 0.0)
    )


def resume(job: Job, recorded: Checkpoint | None) -> Checkpoint:
    """Return where to go on: the recorded checkpoint, or the start if there is none or none that can be used."""
    return recorded if recorded is not None and recorded.valid else start(job)


def _jitter(workload: Workload, round_number: int) -> float:
    if workload.jitter == 0:
        return 1.0
    digest = blake2b(f"{workload.seed}/{round_number}".encode(), digest_size=8).digest()
    uniform = ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / 2.0**_BITS
    return math.exp(workload.jitter * _NORMAL.inv_cdf(uniform) - workload.jitter**2 / 2)
