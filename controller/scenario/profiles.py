"""Profiles: the consumption of a VM over time as a share of its request; 1 is the whole request, 2.5 exceeds it.

Guarantees: a value is a pure function of profile, time and the VM's seed, at a cost that does not grow with time, and
lies within the profile's bounds. Times are in simulated seconds from the beginning of the play.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from controller.scenario import chance
from controller.scenario.distributions import clamp, plain


class Profile(Protocol):
    """Shares of a request over time."""

    @property
    def low(self) -> Decimal:
        """The lower bound of the shares."""
        ...

    @property
    def high(self) -> Decimal:
        """The upper bound of the shares."""
        ...

    @property
    def end(self) -> float | None:
        """The time from which the share is constant; None if there is none."""
        ...

    def at(self, seconds: float, seed: int) -> Decimal:
        """Return the share at a time, for the VM with this seed."""
        ...

    def describe(self) -> str:
        """Return a description of a few words."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same share at all times."""

    value: Decimal

    @property
    def low(self) -> Decimal:
        """That share."""
        return self.value

    @property
    def high(self) -> Decimal:
        """That share."""
        return self.value

    @property
    def end(self) -> float | None:
        """From the beginning."""
        return 0.0

    def at(self, seconds: float, seed: int) -> Decimal:
        """Return that share."""
        del seconds, seed
        return self.value

    def describe(self) -> str:
        """Return the share in percent."""
        return _percent(self.value)


@dataclass(frozen=True, slots=True)
class Samples:
    """A step function: each share lasts from its time until the next; times rise from 0.

    With `period`, in seconds, it repeats; without, the last share stays.
    """

    times: tuple[float, ...]
    values: tuple[Decimal, ...]
    period: float | None = None

    @property
    def low(self) -> Decimal:
        """The smallest share."""
        return min(self.values)

    @property
    def high(self) -> Decimal:
        """The largest share."""
        return max(self.values)

    @property
    def end(self) -> float | None:
        """The last time, unless it repeats itself."""
        return self.times[-1] if self.period is None else None

    def at(self, seconds: float, seed: int) -> Decimal:
        """Return the share of the last step that has begun."""
        del seed
        moment = seconds if self.period is None else seconds % self.period
        return self.values[max(0, bisect_right(self.times, moment) - 1)]

    def describe(self) -> str:
        """Return the number of steps, their duration and their range."""
        counted = f"{len(self.values)} steps"
        if self.period is not None:
            return f"{counted} {_range(self.low, self.high)}, again every {brief(self.period)}"
        over = f" over {brief(self.times[-1])}," if self.times[-1] else ""
        return f"{counted}{over} {_range(self.low, self.high)}"


@dataclass(frozen=True, slots=True)
class Sine:
    """A sine wave around a mean. `phase` is a part of the period; each VM adds a random part of it up to `spread`."""

    mean: Decimal
    amplitude: Decimal
    period: float
    phase: float = 0.0
    spread: float = 0.0

    @property
    def low(self) -> Decimal:
        """The trough."""
        return self.mean - self.amplitude

    @property
    def high(self) -> Decimal:
        """The crest."""
        return self.mean + self.amplitude

    @property
    def end(self) -> float | None:
        """None: it never ends."""
        return None

    def at(self, seconds: float, seed: int) -> Decimal:
        """Return the value of the wave."""
        ahead = self.phase + (self.spread * chance.unit(seed, 0) if self.spread else 0.0)
        wave = math.sin(math.tau * (seconds / self.period + ahead))
        return clamp(self.mean + self.amplitude * Decimal(wave), self.low, self.high)

    def describe(self) -> str:
        """Return the range and the period."""
        return f"sine {_range(self.low, self.high)} every {brief(self.period)}"


@dataclass(frozen=True, slots=True)
class Walk:
    """A random walk from `start` with a step every `every` seconds, reflected at the bounds.

    `step` is the standard deviation of one step.
    """

    start: Decimal
    step: Decimal
    every: float
    low: Decimal
    high: Decimal

    @property
    def end(self) -> float | None:
        """None: it never ends."""
        return None

    def at(self, seconds: float, seed: int) -> Decimal:
        """Return the position of the walk."""
        position = self.start + self.step * Decimal(chance.walk(seed, int(seconds / self.every)))
        span = self.high - self.low
        if not span:
            return self.low
        folded = abs((position - self.low) % (2 * span))  # Decimal's remainder has the sign of the dividend
        return clamp(self.low + min(folded, 2 * span - folded), self.low, self.high)

    def describe(self) -> str:
        """Return the range and the period."""
        return f"walk {_range(self.low, self.high)}, a step every {brief(self.every)}"


@dataclass(frozen=True, slots=True)
class Curve:
    """One annotation of one VM over time: the profile's share of the VM's request."""

    profile: Profile
    request: Decimal
    seed: int

    def at(self, seconds: float) -> str:
        """Return the share of the reference node that the VM uses, as the annotation's plain decimal string."""
        return plain(self.profile.at(seconds, self.seed) * self.request)


@dataclass(frozen=True, slots=True)
class Part:
    """The curves of one VM; None where its consumption is its request."""

    vm: str
    cpu: Curve | None
    memory: Curve | None

    def at(self, seconds: float) -> tuple[str | None, str | None]:
        """Return both annotations, CPU first, at a time."""
        return (
            self.cpu.at(seconds) if self.cpu is not None else None,
            self.memory.at(seconds) if self.memory is not None else None,
        )

    @property
    def end(self) -> float | None:
        """The time from which both are constant; None if there is none."""
        ends = [curve.profile.end for curve in (self.cpu, self.memory) if curve is not None]
        finite = [end for end in ends if end is not None]
        return max(finite, default=0.0) if len(finite) == len(ends) else None


def brief(seconds: float) -> str:
    """Write a time in the largest units that fit: 1h30m, 24h, 0.5s."""
    whole = int(seconds)
    if whole != seconds or not whole:
        return f"{seconds:g}s"
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{name}" for count, name in parts if count)


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f}%"


def _range(low: Decimal, high: Decimal) -> str:
    return f"{_percent(low)} to {_percent(high)}" if low != high else _percent(low)
