"""How far live migrations are between two checkpoints of their statuses, and when each ends.

Guarantees: pure, for whoever shows live migrations: what a move has copied follows from the migrations and the clock,
and nothing is asked of the API server. The pace is that of all moves that copy at the same time, so give them all. An
odd record costs only its own migration.

A single call assumes that the moves copied since their checkpoints at the paces of now. Calls that are given the result
of the call before, one at each change of the migrations, miss no change of pace. A call takes a bounded number of steps
for each move; a move that needs more is shown as it was some time ago, and the next call goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from controller.domain.copying.advance import advance, forecast
from controller.domain.copying.model import Checkpoint, Job, resume
from controller.domain.copying.sharing import paces
from controller.domain.migration import copying
from controller.domain.objects import VirtualMachineMigration

_LONGEST: Final = 1e8
"""Seconds, three years: an end that is later is none."""


class Progress(msgspec.Struct, frozen=True, gc=False):
    """A move that copies, as it was at `at`: now, unless it has ended or takes too many steps to get there.

    `pace`: bytes a simulated second from then on; 0 once it has ended. `recorded`: the timestamp of the checkpoint in
    the status that it was computed from.
    """

    job: Job
    checkpoint: Checkpoint
    at: datetime
    pace: float
    recorded: str

    @property
    def share(self) -> float:
        """The share, from 0 to 1, of the bytes to send that have been sent, as far as it is known by now."""
        whole = self.checkpoint.sent + self.checkpoint.rest
        return min(self.checkpoint.sent / whole, 1.0) if whole > 0 else 1.0

    @property
    def dirty_rate(self) -> float:
        """The bytes a simulated second that the guest dirties in this round."""
        return self.job.dirty_rate(self.checkpoint.round, self.checkpoint.throttle)


class End(msgspec.Struct, frozen=True, gc=False):
    """When a move ends at its present pace, and whether it has copied all by then, or is aborted."""

    at: datetime
    completes: bool


NONE: Final[Mapping[str, Progress]] = MappingProxyType({})
"""The result of no call before."""


def progress(
    migrations: Iterable[VirtualMachineMigration],
    *,
    capacity: float,
    speed: float,
    now: datetime,
    before: Mapping[str, Progress] = NONE,
) -> dict[str, Progress]:
    """Return how far each migration that copies is now, by its UID; other migrations are left out.

    `capacity` is that of each direction of a node, in bytes of memory a simulated second (`CopyingPolicy.capacity`);
    `speed` is the simulated seconds in a real one. `before` is the result of the last call.
    """
    steps = stepwise(migrations, capacity=capacity, speed=speed, now=now, before=before)
    return deque(steps, maxlen=1)[0]


def stepwise(
    migrations: Iterable[VirtualMachineMigration],
    *,
    capacity: float,
    speed: float,
    now: datetime,
    before: Mapping[str, Progress] = NONE,
) -> Iterator[dict[str, Progress]]:
    """Yield after each migration, at most 3 ms apart; the last result is that of `progress`, the others are parts."""
    known = {
        item.metadata.uid: (transfer, last)
        for item in migrations
        if (transfer := copying.transfer(item)) is not None and (last := _last(item, now, before)) is not None
    }
    going = [transfer for transfer, last in known.values() if not last.checkpoint.ended]
    shared = paces(going, capacity)
    moved: dict[str, Progress] = {}
    for uid, (_, last) in known.items():
        ended = last.checkpoint.ended
        moved[uid] = last if ended else _moved(last, before.get(uid, last).pace or shared[uid], speed, now)
        yield moved
    left = [transfer for transfer in going if not moved[transfer.key].checkpoint.ended]
    if len(left) < len(going):
        shared = paces(left, capacity)
    yield {
        uid: msgspec.structs.replace(one, pace=0.0 if one.checkpoint.ended else shared[uid])
        for uid, one in moved.items()
    }


def end(found: Progress, *, speed: float) -> End | None:
    """Return when a move ends at its pace; None if that is not within 200 rounds. It takes up to 3 ms."""
    if found.checkpoint.ended:
        return End(found.at, completes=not found.checkpoint.aborted)
    last = forecast(found.job, found.checkpoint, found.pace).end
    seconds = (last.elapsed - found.checkpoint.elapsed) / speed if last is not None else _LONGEST
    if last is None or seconds >= _LONGEST:
        return None
    return End(found.at + timedelta(seconds=seconds), completes=not last.aborted)


def _last(item: VirtualMachineMigration, now: datetime, before: Mapping[str, Progress]) -> Progress | None:
    """Return where a migration was last: as computed before, or as its status records since then."""
    record, uid = item.status.copying, item.metadata.uid
    if record is None:
        return None
    if (known := before.get(uid)) is not None and known.recorded == record.timestamp:
        return known
    job = record.job(uid)
    return Progress(job, resume(job, record.checkpoint), copying.since(record, now), 0.0, record.timestamp)


def _moved(last: Progress, pace: float, speed: float, now: datetime) -> Progress:
    """Return a move as it is now, at this pace since, or as far as a bounded number of steps goes."""
    began = min(last.at, now)  # the clock may have been set back
    advanced = advance(last.job, last.checkpoint, (now - began).total_seconds() * speed, pace)
    passed = timedelta(seconds=(advanced.checkpoint.elapsed - last.checkpoint.elapsed) / speed)
    return msgspec.structs.replace(last, checkpoint=advanced.checkpoint, at=began + passed)
