"""Distributions of the sizes of a group's VMs: one size for all, or one drawn for each.

Guarantees: a drawn size is a pure function of the VM's seed, lies within the distribution's bounds, and has at most
four decimal places.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import accumulate
from typing import Final, Protocol

from controller.scenario import chance

QUANTUM: Final = Decimal("0.0001")
"""The finest difference between two ratios: 3.2 millicores of a reference node of 32 CPUs."""


def plain(ratio: Decimal) -> str:
    """Write a ratio as a plain decimal string of two to four places."""
    text = f"{ratio.quantize(QUANTUM, ROUND_HALF_EVEN):f}"
    return text[:-2] + text[-2:].rstrip("0")


def clamp(value: Decimal, low: Decimal, high: Decimal) -> Decimal:
    """Return the value, limited to the bounds."""
    return min(max(value, low), high)


class Distribution(Protocol):
    """Sizes between two bounds, both included."""

    @property
    def low(self) -> Decimal:
        """The smallest size."""
        ...

    @property
    def high(self) -> Decimal:
        """The largest size."""
        ...

    def draw(self, seed: int) -> Decimal:
        """Return the size of the VM with this seed."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same size for all."""

    value: Decimal

    @property
    def low(self) -> Decimal:
        """That size."""
        return self.value

    @property
    def high(self) -> Decimal:
        """That size."""
        return self.value

    def draw(self, seed: int) -> Decimal:
        """Return that size."""
        del seed
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every size between the bounds is equally likely."""

    low: Decimal
    high: Decimal

    def draw(self, seed: int) -> Decimal:
        """Return one of them."""
        count = int((self.high - self.low) / QUANTUM) + 1
        return self.low + QUANTUM * int(chance.unit(seed, 0) * count)


@dataclass(frozen=True, slots=True)
class Normal:
    """Normally distributed sizes; a size outside the bounds becomes the bound."""

    mean: Decimal
    stddev: Decimal
    low: Decimal
    high: Decimal

    def draw(self, seed: int) -> Decimal:
        """Return one of them."""
        size = self.mean + self.stddev * Decimal(chance.normal(seed, 0))
        return clamp(size.quantize(QUANTUM, ROUND_HALF_EVEN), self.low, self.high)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some sizes, drawn by weight. Weights are above 0."""

    values: tuple[Decimal, ...]
    weights: tuple[Decimal, ...]

    @property
    def low(self) -> Decimal:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> Decimal:
        """The largest value."""
        return max(self.values)

    def draw(self, seed: int) -> Decimal:
        """Return one of them."""
        sums = list(accumulate(self.weights))
        mark = Decimal(chance.unit(seed, 0)) * sums[-1]
        return next((value for value, upto in zip(self.values, sums, strict=True) if mark < upto), self.values[-1])
