"""Status debounce: for how long the status of a VM that is starting may stay unwritten during a burst.

Guarantees: while `UNHURRIED` VMs or fewer are starting, each phase is published at once. While more are starting,
their intermediate phases are held back and merged into one write. A pending status is published when arrivals stop for
twice the estimated drain time of the burst, at the latest after `PATIENCE`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

UNHURRIED: Final = 16
"""VMs that may be starting at the same time with every phase published at once."""
PATIENCE: Final = 30.0
"""Seconds for which a status stays pending at most."""
USUAL_PACE: Final = 0.02
"""Seconds between two arrivals (VMs that reach Running), until enough of them are measured."""
ALLOWANCE: Final = 2
"""Factor on the estimated drain time: the pace is uneven, and pods arrive in any order."""
_MEASURED: Final = 32
"""Number of latest arrivals from which the pace is measured."""
_TOO_FEW: Final = 8
"""Arrivals below which the usual pace is assumed."""


class BurstGate:
    """The VMs (or migrations) that are starting, by key. `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # For each key: when it began to start, and until when its status stays pending.
        self._waits: dict[str, tuple[float, float]] = {}
        # Times of the arrivals in this burst, newest last.
        self._arrivals: deque[float] = deque(maxlen=_MEASURED)

    def wait(self, key: str) -> float:
        """Count a VM as starting; return the seconds for which its status may stay pending (<= 0: write it)."""
        now = self._monotonic()
        since, until = self._waits.setdefault(key, (now, now))
        excess = len(self._waits) - UNHURRIED
        if excess <= 0:
            self._arrivals.clear()
            return 0.0
        # Each arrival restarts the wait, with the drain time of the VMs that are still starting.
        moved = max(since, self._arrivals[-1]) if self._arrivals else since
        until = max(until, min(since + PATIENCE, moved + ALLOWANCE * excess * self._pace()))
        self._waits[key] = (since, until)
        return until - now

    def arrived(self, key: str) -> None:
        """Stop counting a VM, and measure its arrival: it runs, or its status reports something else than progress."""
        if self._waits.pop(key, None) is not None:
            self._arrivals.append(self._monotonic())

    def forget(self, key: str) -> None:
        """Stop counting a VM that no longer exists or is stuck; the pace is not affected."""
        self._waits.pop(key, None)

    def _pace(self) -> float:
        if len(self._arrivals) < _TOO_FEW:
            return USUAL_PACE
        return (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
