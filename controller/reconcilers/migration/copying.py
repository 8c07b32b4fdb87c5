"""The moves that copy memory: the pace of each on the nodes' links, and when something is to be decided about it.

Guarantees: what a move has copied follows from the moves that the caches show and the clock, so that another process
that begins from the recorded checkpoints goes on at the same pace. When a move begins or ends, work is done for the
moves that share a link with it, and none of them is reconciled before something is decided about it. A move with an odd
record does not count, and costs no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeAlias

from controller.domain.copying.advance import advance, differs, forecast
from controller.domain.copying.model import Checkpoint, Job, resume
from controller.domain.copying.sharing import Link, Transfer, affected, paces
from controller.domain.migration import copying
from controller.domain.migration.copying import Progress
from controller.domain.objects import VirtualMachineMigration
from controller.engine.store import gone
from controller.observe.caches import Caches

_SOONEST: Final = 0.001
"""Seconds until a timer is due at least: a clock of microseconds may show the moment before the deadline."""
_SOONEST_OF_LONG: Final = 0.05
"""Seconds until that of a move whose end is out of sight, which costs milliseconds of CPU each time."""
_NEVER: Final = 1e9
"""Seconds: more than any timer is set to."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not make the call."""
        ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""Makes a call after so many seconds."""


class _Move:
    """A move that copies: where it was at a time, and the pace that it has since; None: not computed yet.

    `told`: where it was when its migration was decided last.
    """

    __slots__ = ("at", "checkpoint", "job", "key", "pace", "timer", "told", "transfer")

    def __init__(self, key: str, transfer: Transfer, job: Job, checkpoint: Checkpoint, at: datetime) -> None:
        self.key = key
        self.job = job
        self.transfer = transfer
        self.checkpoint = self.told = checkpoint
        self.at = at
        self.pace: float | None = None
        self.timer: Timer | None = None


class CopyingMoves:
    """The moves that copy. `capacity` is that of each direction of a node, in bytes of memory a simulated second.

    `speed`: simulated seconds in a real one. `wake` queues the VM of a move about which something is to be decided.
    """

    def __init__(
        self,
        capacity: float,
        speed: float,
        *,
        now: Callable[[], datetime],
        call_later: CallLater,
        wake: Callable[[str], None],
    ) -> None:
        self._capacity = capacity
        self._speed = speed
        self._now = now
        self._call_later = call_later
        self._wake = wake
        self._moves: dict[str, _Move] = {}
        self._on: dict[Link, dict[str, Transfer]] = defaultdict(dict)
        # The links whose moves have changed since the paces were computed.
        self._changed_links: set[Link] = set()

    def listen(self, caches: Iterable[Caches]) -> None:
        """Take in the moves that the caches show, and follow the migrations from now on."""
        for cache in caches:
            cache.migrations.listen(self._changed, name="CopyingMoves")
            for item in cache.migrations:
                self._changed(None, item)

    def progress(self, item: VirtualMachineMigration) -> Progress | None:
        """Return how far a migration's copying is now; None if the cache does not show that it copies."""
        move = self._moves.get(item.metadata.uid)
        if move is None:
            return None
        self._share()
        now = self._now()
        self._advance(move, now)
        move.told = move.checkpoint
        if move.timer is None:
            self._set_timer(move)
        return Progress(move.checkpoint, behind=move.at < now and not move.checkpoint.ended)

    # --- the moves on the links ----------------------------------------------------------------------------------

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        if (deleted := gone(old, new)) is not None:
            self._forget(deleted.metadata.uid)
        if new is None:
            return
        transfer, record, uid = copying.transfer(new), new.status.copying, new.metadata.uid
        if transfer is None or record is None:
            self._forget(uid)
        elif uid not in self._moves:
            job, at = record.job(uid), copying.since(record, self._now())
            self._moves[uid] = _Move(new.vm_key, transfer, job, resume(job, record.checkpoint), at)
            for link in transfer.links:
                self._on[link][uid] = transfer
            self._share_soon(transfer)

    def _forget(self, uid: str) -> None:
        move = self._moves.pop(uid, None)
        if move is not None:
            self._leave_links(move)

    def _leave_links(self, move: _Move) -> None:
        """Leave the links to the other moves: this one has copied all, or does not copy any more."""
        if move.timer is not None:
            move.timer.cancel()
            move.timer = None
        uid = move.transfer.key
        for link in move.transfer.links:
            if self._on[link].pop(uid, None) is not None:
                self._share_soon(move.transfer)
            if not self._on[link]:
                del self._on[link]

    # --- paces -----------------------------------------------------------------------------------------------------

    def _share_soon(self, transfer: Transfer) -> None:
        """Compute the paces anew, once for all changes that come at the same time."""
        if not self._changed_links:
            self._call_later(0.0, self._share)
        self._changed_links.update(transfer.links)

    def _share(self) -> None:
        """Compute the paces of the moves that a change affects."""
        if not self._changed_links:
            return
        links, now = sorted(self._changed_links), self._now()
        self._changed_links.clear()
        found = affected(links, lambda link: self._on.get(link, {}).values(), self._capacity)
        for uid, pace in paces(found, self._capacity).items():
            move = self._moves[uid]
            if pace == move.pace:
                continue
            faster = move.pace is None or pace > move.pace
            self._advance(move, now)
            move.pace = pace
            if differs(move.told, move.checkpoint):  # its timer is due at this moment
                self._wake(move.key)
            if faster:  # what is decided about a slower one comes later: its timer finds that out
                self._set_timer(move)

    def _advance(self, move: _Move, now: datetime) -> None:
        """Bring a move up to now, or as far as a bounded number of steps goes."""
        move.at = min(move.at, now)  # the clock was set back: what was copied stays so, and copying goes on
        seconds = (now - move.at).total_seconds() * self._speed
        if move.pace is None or seconds <= 0 or move.checkpoint.ended:
            return
        advanced = advance(move.job, move.checkpoint, seconds, move.pace)
        move.checkpoint = advanced.checkpoint
        move.at = now - timedelta(seconds=advanced.seconds_left / self._speed)
        if move.checkpoint.ended:
            self._leave_links(move)

    def _set_timer(self, move: _Move) -> None:
        """Look at a move again when, at its pace, something is decided about it."""
        if move.timer is not None:
            move.timer.cancel()
            move.timer = None
        if move.pace is None or move.checkpoint.ended:
            return
        ahead = forecast(move.job, move.checkpoint, move.pace)
        left = ahead.deadline / self._speed - (self._now() - move.at).total_seconds()
        if left < _NEVER:
            soonest = _SOONEST if ahead.end is not None else _SOONEST_OF_LONG
            move.timer = self._call_later(max(left, soonest), partial(self._due, move))

    def _due(self, move: _Move) -> None:
        move.timer = None
        self._advance(move, self._now())
        if differs(move.told, move.checkpoint):
            self._wake(move.key)
        else:
            self._set_timer(move)
