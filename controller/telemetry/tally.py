"""Counts that are taken on the hot path, and become samples only when somebody scrapes.

Guarantees: an observation is a bisection and two additions, without a lock: the event loop's thread alone observes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

from prometheus_client.utils import floatToGoString


class Tally:
    """A histogram's observations. `bounds` are the buckets' upper bounds, ascending, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0
        """The sum of what was observed."""

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose bound it does not exceed."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bucket's `le` and how many values it holds, those of smaller buckets included."""
        found: list[tuple[str, float]] = []
        held = 0
        for bound, count in zip((*self._bounds, inf), self._counts, strict=True):
            held += count
            found.append((floatToGoString(bound), float(held)))  # type: ignore[no-untyped-call]
        return found
