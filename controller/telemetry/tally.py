"""A cheap histogram for the hot path; its samples are built only at a scrape.

Guarantees: an observation is a bisection and two additions, without a lock: only the event loop's thread observes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

from prometheus_client.utils import floatToGoString


class Tally:
    """A histogram. `bounds` are the buckets' upper bounds, ascending, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0
        """The sum of the observed values."""

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose upper bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bucket's `le` and its cumulative count."""
        found: list[tuple[str, float]] = []
        cumulative = 0
        for bound, count in zip((*self._bounds, inf), self._counts, strict=True):
            cumulative += count
            found.append((floatToGoString(bound), float(cumulative)))  # type: ignore[no-untyped-call]
        return found
