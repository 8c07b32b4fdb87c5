"""Reads the values that a scenario writes as `name: {…}`: distributions of sizes, and profiles over time.

Guarantees: a returned value can be drawn from or played: bounds are in order, no size is below 0, times rise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar

from controller.scenario.distributions import QUANTUM, Choice, Distribution, Fixed, Normal, Uniform
from controller.scenario.document import Spot, UnusableError, attempt
from controller.scenario.profiles import Constant, Profile, Samples, Sine, Walk
from controller.scenario.readings import UNITS
from controller.scenario.traces import HIGHEST, Reading, Traces
from controller.scenario.values import decimal, duration, time, truth

T = TypeVar("T")
_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
_MOST_CHOICES: Final = 100
_HEAVIEST: Final = Decimal(1_000_000)
_MOST_STEPS: Final = 10_000
_HOLD, _REPEAT = "hold", "repeat"
_share = decimal(_ZERO, HIGHEST)
_part = decimal(_ZERO, _ONE)


def distribution(maximum: Decimal) -> Callable[[Spot], Distribution]:
    """Return the reader of sizes from 0 to a maximum."""
    size = decimal(_ZERO, maximum)
    kinds: Mapping[str, Callable[[Spot], Distribution]] = {
        "uniform": partial(_uniform, size),
        "normal": partial(_normal, size),
        "choice": partial(_choice, size),
    }
    return partial(_one_of, lambda spot: Fixed(size(spot)), kinds)


def profile(column: str, traces: Traces) -> Callable[[Spot], Profile]:
    """Return the reader of shares over time; `column` is its column in a trace."""

    def trace(spot: Spot) -> Profile:
        fields = spot.fields("file, end, unit and percent", "file", "end", "unit", "percent")
        reading = Reading(fields.optional("unit", _unit, None), fields.optional("percent", truth, None))
        repeat = fields.optional("end", _end, _HOLD) == _REPEAT
        samples = fields.required("file", lambda file: traces.samples(file, column, reading, repeat=repeat))
        if samples is None:
            raise UnusableError
        return samples

    kinds: Mapping[str, Callable[[Spot], Profile]] = {"steps": _steps, "sine": _sine, "walk": _walk, "trace": trace}
    return partial(_one_of, lambda spot: Constant(_share(spot)), kinds)


def _one_of(plain: Callable[[Spot], T], kinds: Mapping[str, Callable[[Spot], T]], spot: Spot) -> T:
    """Read a number, or a mapping with one field that names the kind."""
    wanted = f"a number, or one of {', '.join(kinds)}"
    if not spot.is_mapping:
        if spot.kind in ("a list", "nothing"):
            raise spot.unusable(f"want {wanted}, not {spot.kind}")
        return plain(spot)
    before = len(spot.notes.problems)
    found = spot.fields(wanted, *kinds).found
    if len(found) != 1:
        if len(spot.notes.problems) == before:
            spot.note(f"want {wanted}, not {' and '.join(found) or 'an empty mapping'}")
        raise UnusableError
    [(name, value)] = found.items()
    return kinds[name](value)


def _uniform(size: Callable[[Spot], Decimal], spot: Spot) -> Distribution:
    fields = spot.fields("min and max", "min", "max")
    low, high = _bounds(spot, fields.required("min", size), fields.required("max", size))
    return Uniform(low, high)


def _normal(size: Callable[[Spot], Decimal], spot: Spot) -> Distribution:
    fields = spot.fields("mean, stddev, min and max", "mean", "stddev", "min", "max")
    mean, stddev = fields.required("mean", size), fields.required("stddev", size)
    low, high = _bounds(spot, fields.required("min", size), fields.required("max", size))
    if mean is None or stddev is None:
        raise UnusableError
    if not low <= mean <= high:
        raise fields.found["mean"].unusable(f"want a mean between min and max, {low} and {high}, not {mean}")
    return Normal(mean, stddev, low, high)


def _choice(size: Callable[[Spot], Decimal], spot: Spot) -> Distribution:
    """Read values with weights; one without a weight, or a bare number, has the weight 1."""
    items = spot.items("a list of value and weight", at_most=_MOST_CHOICES)
    if not items:
        raise spot.unusable("want at least one value to choose")
    chosen = [attempt(partial(_chosen, size), item) for item in items]
    pairs = [pair for pair in chosen if pair is not None]
    if len(pairs) < len(items):
        raise UnusableError
    return Choice(tuple(value for value, _ in pairs), tuple(weight for _, weight in pairs))


def _chosen(size: Callable[[Spot], Decimal], spot: Spot) -> tuple[Decimal, Decimal]:
    if not spot.is_mapping:
        return size(spot), _ONE
    fields = spot.fields("value and weight", "value", "weight")
    value = fields.required("value", size)
    weight = fields.optional("weight", decimal(QUANTUM, _HEAVIEST), _ONE)
    if value is None:
        raise UnusableError
    return value, weight


def _bounds(spot: Spot, low: Decimal | None, high: Decimal | None) -> tuple[Decimal, Decimal]:
    if low is None or high is None:
        raise UnusableError
    if low > high:
        raise spot.unusable(f"want a min of at most max, not {low} and {high}")
    return low, high


def _steps(spot: Spot) -> Profile:
    """Read values, each from its time on."""
    items = spot.items("a list of at and value", at_most=_MOST_STEPS)
    if not items:
        raise spot.unusable("want at least one step")
    steps: list[tuple[float, Decimal]] = []
    for item in items:
        step = attempt(_step, item)
        if step is None:
            continue
        if not steps and item is items[0] and step[0]:
            item.note("the first step must be at 0s")
        elif steps and step[0] <= steps[-1][0]:
            item.note("want a step later than the one before")
        steps.append(step)
    if len(steps) < len(items):
        raise UnusableError
    return Samples(tuple(at for at, _ in steps), tuple(value for _, value in steps))


def _step(spot: Spot) -> tuple[float, Decimal]:
    fields = spot.fields("at and value", "at", "value")
    at, value = fields.required("at", time), fields.required("value", _share)
    if at is None or value is None:
        raise UnusableError
    return at, value


def _sine(spot: Spot) -> Profile:
    fields = spot.fields("mean, amplitude and period", "mean", "amplitude", "period", "phase", "spread")
    mean, amplitude = fields.required("mean", _share), fields.required("amplitude", _share)
    period = fields.required("period", duration)
    phase, spread = fields.optional("phase", _part, _ZERO), fields.optional("spread", _part, _ZERO)
    if mean is None or amplitude is None or period is None:
        raise UnusableError
    if amplitude > mean:
        raise fields.found["amplitude"].unusable(f"want at most the mean, {mean}: a VM cannot use less than nothing")
    return Sine(mean, amplitude, period, float(phase), float(spread))


def _walk(spot: Spot) -> Profile:
    fields = spot.fields("start, step, every, min and max", "start", "step", "every", "min", "max")
    start, step = fields.required("start", _share), fields.required("step", _share)
    every = fields.required("every", duration)
    low, high = _bounds(spot, fields.required("min", _share), fields.required("max", _share))
    if start is None or step is None or every is None:
        raise UnusableError
    if not low <= start <= high:
        raise fields.found["start"].unusable(f"want a start between min and max, {low} and {high}, not {start}")
    return Walk(start, step, every, low, high)


def _end(spot: Spot) -> str:
    return _word(spot, _HOLD, _REPEAT)


def _unit(spot: Spot) -> str:
    return _word(spot, *UNITS)


def _word(spot: Spot, *words: str) -> str:
    wanted = f"{', '.join(words[:-1])} or {words[-1]}"
    written = spot.text(wanted)
    if written not in words:
        raise spot.unusable(f"want {wanted}, not {written!r}")
    return written
