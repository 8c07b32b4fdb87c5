"""Histograms of phase transition times, with KubeVirt's buckets.

Guarantees: every phase has its series from the start, with 0; an observation costs no lookup of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

BUCKETS: Final = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
"""KubeVirt's, in seconds."""


def histograms(
    registry: CollectorRegistry, name: str, text: str, phases: Iterable[str]
) -> dict[str, Callable[[float], None]]:
    """Return for each phase the function that observes the seconds of a transition to it."""
    seconds = Histogram(name, text, ("phase",), buckets=BUCKETS, registry=registry)
    return {phase: seconds.labels(phase).observe for phase in phases}
