"""The figures of a measurement: values, their spread over the rounds, and ratios within a round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Self

import msgspec


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of sorted values (nearest rank); NaN if there are none."""
    if not values:
        return float("nan")
    return values[min(len(values), max(1, ceil(share * len(values)))) - 1]


class Sample(msgspec.Struct, frozen=True):
    """One contestant's figures in one round of one measure; `load` is the machine's load before it began."""

    measure: str
    contestant: str
    round: int
    values: dict[str, float]
    load: float
    at: str


class Spread(msgspec.Struct, frozen=True):
    """The least, median and greatest value of one figure over the rounds."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """Return the spread of some values; None if there are none."""
        found = sorted(values)
        return cls(found[0], median(found), found[-1]) if found else None


class Results(msgspec.Struct):
    """All figures of one machine. A measure that is run again replaces its earlier figures."""

    machine: dict[str, str]
    samples: list[Sample] = []
    failures: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the results of an earlier run; None if there are none, or they cannot be decoded."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write(self, path: Path) -> None:
        """Write all results as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    def drop(self, measure: str) -> None:
        """Drop the earlier figures and failures of a measure."""
        self.samples = [sample for sample in self.samples if sample.measure != measure]
        self.failures = [failure for failure in self.failures if not failure.startswith(f"{measure} ")]

    def values(self, measure: str, contestant: str, key: str) -> dict[int, float]:
        """Return one figure of a contestant by round."""
        return {
            sample.round: sample.values[key]
            for sample in self.samples
            if (sample.measure, sample.contestant) == (measure, contestant) and key in sample.values
        }

    def spread(self, measure: str, contestant: str, key: str) -> Spread | None:
        """Return the spread of a contestant's figure; None if it was not measured."""
        return Spread.of(self.values(measure, contestant, key).values())

    def ratio(self, measure: str, contestant: str, to: str, key: str) -> Spread | None:
        """Return the spread of the ratios of a contestant's figure to that of `to`, in the same round."""
        own, others = self.values(measure, contestant, key), self.values(measure, to, key)
        return Spread.of(own[number] / others[number] for number in own.keys() & others.keys() if others[number])
