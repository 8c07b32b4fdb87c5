"""The model of copying beside what was measured: `python -m hack.calibration` prints the table.

Guarantees: the same table at each run. The published figures are those of KubeVirt's enhancement VEP 291: an OpenShift
worker of 8 GiB, and an idle VM of unpublished size, over 1 Gb/s. That the idle one uses 0.6 GiB is our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import mean
from typing import Final, NamedTuple

from controller.domain.copying import constants
from controller.domain.copying.advance import finish
from controller.domain.copying.model import DowntimeTuning, Job, Limits, Workload, completion_timeout, start

SEEDS: Final = 300
"""Moves of which a prediction is the mean."""

_GIB: Final = 2.0**30
_MIB: Final = 2.0**20
_MEGABIT: Final = 1e6 / 8
_PACE: Final = constants.GOODPUT * 1000 * _MEGABIT
_RAMP: Final = DowntimeTuning(initial=0.15, ceiling=1.05, steps=6)
"""VEP 291's timeline: 150 ms more each 10 s."""


class Figures(NamedTuple):
    """Seconds in all, MiB sent, rounds, and seconds of downtime of a move."""

    total: float
    mib: float
    rounds: float
    downtime: float


class Measurement(NamedTuple):
    """One measurement: the figures published of it, and the moves that play it. `dirty_rate`: bytes a second."""

    name: str
    published: dict[str, float]
    dirty_rate: float
    tuning: DowntimeTuning | None = None
    memory_in_use: float = 8 * _GIB
    jitter: float = constants.DIRTY_RATE_JITTER
    seeds: int = SEEDS

    def converged(self) -> list[Figures]:
        """Return the figures of the moves that converge: of all `seeds`, or of fewer."""
        ends = [finish(job, start(job), _PACE) for job in map(self._job, range(self.seeds))]
        return [
            Figures(end.elapsed, end.sent / _MIB, end.round, end.downtime) for end in ends if end and not end.aborted
        ]

    def _job(self, seed: int) -> Job:
        writable_set = constants.WRITABLE_SHARE * self.memory_in_use
        workload = Workload(self.memory_in_use, self.dirty_rate, writable_set, self.jitter, str(seed))
        return Job(workload, Limits(completion_timeout(self.memory_in_use), tuning=self.tuning))


TUNED_650: Final = Measurement(
    "650 Mb/s, tuned", {"total": 92.2, "mib": 9694, "rounds": 28, "downtime": 0.611}, 650 * _MEGABIT, _RAMP
)
FIXED_650: Final = Measurement(
    "650 Mb/s, 300 ms", {"total": 112.4, "mib": 11862, "rounds": 69, "downtime": 0.451}, 650 * _MEGABIT
)
TUNED_900: Final = Measurement("900 Mb/s, tuned", {"downtime": 1.0}, 900 * _MEGABIT, _RAMP)
FIXED_900: Final = Measurement("900 Mb/s, 300 ms", {}, 900 * _MEGABIT, seeds=20)
"""A move that does not converge is 20 times as long to compute."""
TUNED_IDLE: Final = Measurement(
    "idle, tuned", {"downtime": 0.129}, constants.DIRTY_RATE, _RAMP, memory_in_use=0.6 * _GIB, jitter=0.0, seeds=1
)
FIXED_IDLE: Final = Measurement(
    "idle, 300 ms", {"downtime": 0.244}, constants.DIRTY_RATE, memory_in_use=0.6 * _GIB, jitter=0.0, seeds=1
)
MEASUREMENTS: Final = (TUNED_650, FIXED_650, TUNED_900, FIXED_900, TUNED_IDLE, FIXED_IDLE)

_FORMATS: Final = {"total": "{:.1f}", "mib": "{:,.0f}", "rounds": "{:.0f}", "downtime": "{:.3f}"}


def means(figures: list[Figures]) -> Figures:
    """Return the mean of each figure of at least one move."""
    return Figures(*map(mean, zip(*figures, strict=True)))


def table(measurements: Iterable[Measurement] = MEASUREMENTS) -> Iterator[str]:
    """Yield the lines of the table in Markdown: each figure predicted, and published in brackets."""
    yield "| VM | converge | total, s | sent, MiB | rounds | downtime, s |"
    yield "|---|---|---|---|---|---|"
    for measurement in measurements:
        converged = measurement.converged()
        share = f"{len(converged) / measurement.seeds:.0%} ({'all' if measurement.published else 'none'})"
        yield "| " + " | ".join((measurement.name, share, *_cells(measurement, converged))) + " |"


def _cells(measurement: Measurement, converged: list[Figures]) -> Iterator[str]:
    for figure, pattern in _FORMATS.items():
        predicted = pattern.format(getattr(means(converged), figure)) if converged else "-"
        published = measurement.published.get(figure)
        yield predicted if published is None else f"{predicted} ({pattern.format(published)})"


if __name__ == "__main__":
    for line in table():
        print(line)
