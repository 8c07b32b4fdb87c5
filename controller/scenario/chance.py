"""Chance that repeats itself: every random number of a scenario is a pure function of a seed and an index.

Guarantees: the same numbers on every machine and every version of Python, in whatever order they are asked for; two
VMs have nothing in common but the scenario's seed, so one more or less changes no other's numbers.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Final

_MASK: Final = (1 << 64) - 1
_STANDARD: Final = NormalDist()
_HORIZON: Final = 24
"""Steps of a walk until it begins anew, as a power of two: at one a second, half a year."""


def seed(*parts: object) -> int:
    """Return the 64-bit seed that belongs to these words."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def unit(seed: int, index: int) -> float:
    """Return a number between 0 and 1, neither included, evenly distributed (splitmix64)."""
    mixed = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return ((mixed >> 12) + 0.5) / (1 << 52)


def normal(seed: int, index: int) -> float:
    """Return a number from the standard normal distribution."""
    return _STANDARD.inv_cdf(unit(seed, index))


def walk(seed: int, steps: int) -> float:
    """Return where a random walk from 0 is after so many standard normal steps.

    Costs the same for any number of steps: it halves the way again and again, and draws where the walk was half-way
    given both ends, which is what makes it a walk whose every step is independent of the others.
    """
    begin, end = 0, 1 << _HORIZON
    steps %= end
    at_begin, at_end = 0.0, normal(seed, 0) * end**0.5
    node = 1
    while steps != begin:
        middle = (begin + end) // 2
        at_middle = (at_begin + at_end) / 2 + normal(seed, node) * ((end - begin) / 4) ** 0.5
        if steps < middle:
            end, at_end, node = middle, at_middle, 2 * node
        else:
            begin, at_begin, node = middle, at_middle, 2 * node + 1
    return at_begin
