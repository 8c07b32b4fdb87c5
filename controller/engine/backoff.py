"""The backoff of a loop of requests to the API server, with the constants of client-go's reflector.

Guarantees: the base delay doubles from 0.8 s to 30 s; each delay is lengthened by up to its base, at random. After two
minutes without a failure the base is 0.8 s again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

INITIAL: Final = 0.8
MAXIMUM: Final = 30.0
RESET_AFTER: Final = 120.0
LONGEST_FLOOR: Final = 300.0
"""Maximum seconds of a Retry-After that are honoured: a longer one would leave the cache stale."""


class Backoff:
    """The delays of one loop. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._next = INITIAL
        self._last = clock()

    def delay(self, *, at_least: float | None = None) -> float:
        """Return the seconds to wait before the next attempt, at least `at_least` (a Retry-After; at most 300 s)."""
        now = self._clock()
        if now - self._last > RESET_AFTER:
            self._next = INITIAL
        base = self._next
        self._next = min(MAXIMUM, base * 2)
        delay = max(base * (1 + self._rng.random()), min(at_least or 0.0, LONGEST_FLOOR))
        self._last = now + delay
        return delay
