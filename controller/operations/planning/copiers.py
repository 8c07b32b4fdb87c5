"""The live moves that copy at the same time: each at the pace that its links leave it, until it ends.

Guarantees: paces are those of `controller.domain.copying.sharing`, and each move advances by the model of
`controller.domain.copying.advance`. A change of pace costs work for the moves that it concerns; a move's next decision
is only computed when none of the others comes before it. Times are real seconds, copying is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.domain.copying import sharing
from controller.domain.copying.advance import advance, forecast
from controller.domain.copying.model import Checkpoint, Job, Mode
from controller.domain.copying.sharing import Link, Transfer

_LEAST: Final = 1e-6
"""Seconds from one look at a move to the next: a decision may come 1e-13 s late, by the rounding of floats."""
_MOST_ROUNDS: Final = 100_000
"""Rounds after which a move counts as one that never ends. With KubeVirt's timeouts, a VM of 256 GiB takes fewer."""
_MOST_WITHOUT_TIMEOUT: Final = 10_000
"""The same for one without a completion timeout: if it converges, it does so within a hundred, mostly."""


@dataclass(slots=True)
class _Copier:
    """A move as of `since`. Nothing is decided before `next_at`; with `exact` something is then."""

    transfer: Transfer
    job: Job
    checkpoint: Checkpoint
    since: float
    pace: float = 0.0
    next_at: float = 0.0
    exact: bool = False


class Copiers:
    """The moves that copy under one controller.

    `capacity`: of each link, bytes a simulated second; `speed`: simulated seconds in a real one.
    """

    def __init__(self, capacity: float, speed: float) -> None:
        self._capacity = capacity
        self._speed = speed
        self._copying: dict[str, _Copier] = {}
        self._on: dict[Link, dict[str, Transfer]] = {}

    def begin(self, transfer: Transfer, job: Job, at: Checkpoint, since: float, now: float) -> None:
        """Let a move copy from a checkpoint on, as of `since`."""
        self._copying[transfer.key] = _Copier(transfer, job, at, since)
        for link in transfer.links:
            self._on.setdefault(link, {})[transfer.key] = transfer
        self._share(transfer.links, now)

    def next_at(self) -> float:
        """Return when something is decided about a move; infinity: never."""
        while self._copying:
            first = min(self._copying.values(), key=lambda copier: copier.next_at)
            if first.exact:
                return first.next_at
            first.exact = True
            bounded = first.job.limits.completion_timeout > 0
            if first.checkpoint.round > (_MOST_ROUNDS if bounded else _MOST_WITHOUT_TIMEOUT):
                first.next_at = math.inf
                continue
            deadline = forecast(first.job, first.checkpoint, first.pace).deadline
            first.next_at = first.since + max(deadline, _LEAST) / self._speed
        return math.inf

    def advance(self, now: float) -> list[tuple[str, Checkpoint]]:
        """Let time pass; return the moves that have ended by now, with their last checkpoints."""
        due = [copier for copier in self._copying.values() if copier.exact and copier.next_at <= now]
        for copier in due:
            self._settle(copier, now)
        ended = [copier for copier in due if copier.checkpoint.ended]
        links = []
        for copier in ended:
            del self._copying[copier.transfer.key]
            for link in copier.transfer.links:
                del self._on[link][copier.transfer.key]
                links.append(link)
        self._share(links, now)
        return [(copier.transfer.key, copier.checkpoint) for copier in ended]

    def _share(self, links: Iterable[Link], now: float) -> None:
        """Give the moves their paces, after a change on some links."""
        concerned = sharing.affected(links, lambda link: self._on.get(link, {}).values(), self._capacity)
        for key, pace in sharing.paces(concerned, self._capacity).items():
            copier = self._copying[key]
            if pace != copier.pace:
                self._settle(copier, now)
                copier.pace = pace
                copier.next_at = copier.since + _earliest(copier.job, copier.checkpoint, pace) / self._speed

    def _settle(self, copier: _Copier, now: float) -> None:
        """Advance a move to now."""
        left = (now - copier.since) * self._speed if copier.pace > 0 else 0.0
        while left > 0:
            done = advance(copier.job, copier.checkpoint, left, copier.pace)
            copier.checkpoint, left = done.checkpoint, done.seconds_left
        copier.since = now if copier.pace > 0 else copier.since
        copier.exact = False
        copier.next_at = now


def _earliest(job: Job, at: Checkpoint, pace: float) -> float:
    """Return simulated seconds in which nothing is decided about a move for sure: it is cheap, and often enough."""
    sent = max(at.wait, 0.0) + (at.round_bytes - at.round_sent) / pace
    late = job.limits.completion_timeout - at.elapsed if job.limits.completion_timeout else math.inf
    return max(min(sent, late), 0.0)


def undone(last: Checkpoint) -> str:
    """Return why a live move fails."""
    left = f"{last.rest / 2**20:,.0f} MiB are left to copy"
    if last.mode is Mode.STUCK:
        return f"its memory cannot be sent: after {last.elapsed:,.0f} simulated seconds {left}"
    return (
        f"it does not converge: after {last.elapsed:,.0f} simulated seconds, its completion timeout, {left}, "
        "since it is dirtied as fast as it is sent"
    )
