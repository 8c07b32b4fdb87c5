"""Moves that copy, in round numbers: round one sends 1,000 bytes, and memory is dirtied alike in all rounds."""

from __future__ import annotations

from typing import Any, Final

from controller.domain.copying.advance import advance
from controller.domain.copying.model import Checkpoint, Fitted, Job, Limits, Workload, start

PACE: Final = 100.0
"""Bytes a second: round one takes 10 s after its overhead."""
OVERHEAD: Final = 0.25
SWITCH_OVER: Final = 0.12


def job(
    *,
    memory: float = 1000.0,
    dirty_rate: float = 10.0,
    writable_set: float = 200.0,
    timeout: float = 0.0,
    **limits: Any,
) -> Job:
    """Return a move; by default it never times out. `limits` are those of `Limits`."""
    workload = Workload(memory, dirty_rate, writable_set, jitter=0.0)
    return Job(workload, Limits(timeout, **limits), Fitted(OVERHEAD, SWITCH_OVER, first_round_share=1.0))


NEVER_CONVERGES: Final[dict[str, Any]] = {"dirty_rate": 1000.0, "writable_set": 500.0}
"""A workload: each round dirties nearly 500 bytes, 5 s of sending."""


def after(subject: Job, seconds: float, pace: float = PACE, *, at: Checkpoint | None = None) -> Checkpoint:
    """Return where a move is after some seconds that take few steps."""
    advanced = advance(subject, start(subject) if at is None else at, seconds, pace)
    assert advanced.seconds_left == 0
    return advanced.checkpoint
