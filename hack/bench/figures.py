"""Figures of a measurement: values, their spread over the rounds, and ratios taken within a round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Self

import msgspec


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which so large a share of sorted values is (nearest rank); NaN of none."""
    if not values:
        return float("nan")
    return values[min(len(values), max(1, ceil(share * len(values)))) - 1]


class Sample(msgspec.Struct, frozen=True):
    """What one contestant showed in one round of one measure; `load` is the machine's before it began."""

    measure: str
    contestant: str
    round: int
    values: dict[str, float]
    load: float
    at: str


class Spread(msgspec.Struct, frozen=True):
    """Least, median and greatest of one figure over the rounds."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """Return the spread of some values, None of none."""
        found = sorted(values)
        return cls(found[0], median(found), found[-1]) if found else None


class Results(msgspec.Struct):
    """Everything measured on one machine. A measure that is run again replaces what it showed before."""

    machine: dict[str, str]
    samples: list[Sample] = []
    failures: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read what an earlier run wrote; None if there is nothing, or nothing that can be read."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write(self, path: Path) -> None:
        """Write all of it."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    def forget(self, measure: str) -> None:
        """Drop what a measure showed before."""
        self.samples = [sample for sample in self.samples if sample.measure != measure]
        self.failures = [failure for failure in self.failures if not failure.startswith(f"{measure} ")]

    def values(self, measure: str, contestant: str, key: str) -> dict[int, float]:
        """Return a figure by round."""
        return {
            sample.round: sample.values[key]
            for sample in self.samples
            if (sample.measure, sample.contestant) == (measure, contestant) and key in sample.values
        }

    def spread(self, measure: str, contestant: str, key: str) -> Spread | None:
        """Return the spread of a figure."""
        return Spread.of(self.values(measure, contestant, key).values())

    def ratio(self, measure: str, contestant: str, to: str, key: str) -> Spread | None:
        """Return the spread of the ratios of one contestant's figure to another's in the same round."""
        own, others = self.values(measure, contestant, key), self.values(measure, to, key)
        return Spread.of(own[number] / others[number] for number in own.keys() & others.keys() if others[number])
