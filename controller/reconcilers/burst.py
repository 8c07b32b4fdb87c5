"""Who is on the way to Running, and for how long what is told of them may wait.

Guarantees: a few VMs at a time are told of at once, phase by phase; under a burst, in which most pods run by the time
somebody looks, a status waits while VMs arrive, so that one write tells all phases; it is told when none has arrived
for twice as long as the whole crowd takes at the pace at which they did lately, and never later than after `PATIENCE`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

UNHURRIED: Final = 16
"""VMs that may be on their way to Running at the same time with every phase published at once."""
PATIENCE: Final = 30.0
"""Seconds for which a status waits at most."""
USUAL_PACE: Final = 0.02
"""Seconds from one VM's arrival to the next one's, until that is measured."""
ALLOWANCE: Final = 2
"""How much longer than the crowd takes by that pace: it is not even, and pods arrive in no order."""
_MEASURED: Final = 32
"""Arrivals by which the pace is measured, at most."""
_TOO_FEW: Final = 8


class BurstGate:
    """The VMs on their way, by key."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # Since when each is on its way, and until when its status waits.
        self._waits: dict[str, tuple[float, float]] = {}
        # When VMs arrived in this burst, newest last.
        self._arrivals: deque[float] = deque(maxlen=_MEASURED)

    def wait(self, key: str) -> float:
        """Count a VM among those on their way; return the seconds for which its status may wait, if that is above 0."""
        now = self._monotonic()
        since, until = self._waits.setdefault(key, (now, now))
        crowd = len(self._waits) - UNHURRIED
        if crowd <= 0:
            self._arrivals.clear()
            return 0.0
        # Those ahead of this VM arrive, and each time the rest is what the crowd that is left takes.
        moved = max(since, self._arrivals[-1]) if self._arrivals else since
        until = max(until, min(since + PATIENCE, moved + ALLOWANCE * crowd * self._pace()))
        self._waits[key] = (since, until)
        return until - now

    def arrived(self, key: str) -> None:
        """Count a VM no more: it runs, or there is something else to tell of it."""
        if self._waits.pop(key, None) is not None:
            self._arrivals.append(self._monotonic())

    def forget(self, key: str) -> None:
        """Count a VM no more that is gone, and says nothing about the pace."""
        self._waits.pop(key, None)

    def _pace(self) -> float:
        if len(self._arrivals) < _TOO_FEW:
            return USUAL_PACE
        return (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
