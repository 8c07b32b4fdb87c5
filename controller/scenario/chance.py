"""Reproducible randomness: every random number of a scenario is a pure function of a seed and an index.

Guarantees: the same numbers on every machine and every version of Python, in any order of calls; the numbers of two VMs
share only the scenario's seed, so adding or removing a VM changes no other's.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Final

_MASK: Final = (1 << 64) - 1
_STANDARD: Final = NormalDist()
_HORIZON: Final = 24
"""The period of a walk is 2 to this power, in steps: half a year at one step a second."""


def seed(*parts: object) -> int:
    """Return the 64-bit seed of these words."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def unit(seed: int, index: int) -> float:
    """Return a uniform number in (0, 1), both bounds excluded (splitmix64)."""
    mixed = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return ((mixed >> 12) + 0.5) / (1 << 52)


def normal(seed: int, index: int) -> float:
    """Return a number from the standard normal distribution."""
    return _STANDARD.inv_cdf(unit(seed, index))


def walk(seed: int, steps: int) -> float:
    """Return the position of a random walk from 0 after `steps` standard normal steps.

    The cost does not depend on `steps`: the interval is halved repeatedly, and the midpoint is drawn given both ends (a
    Brownian bridge), so the steps are independent of each other.
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
