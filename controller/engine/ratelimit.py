"""How long a failed key waits, as client-go's default_rate_limiters decide it.

Guarantees: the first failure waits about 5 ms and each further one twice as long, at most 1000 s; all retries
together average at most 10 a second beyond a burst of 100. Only retries pass here: a burst of new keys goes
through `WorkQueue.add` and is never slowed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Final, Protocol

BASE_DELAY: Final = 0.005
MAX_DELAY: Final = 1000.0
_MAX_DOUBLINGS: Final = 18
"""5 ms doubled 18 times is past 1000 s; a larger exponent would only overflow."""
RETRIES_PER_SECOND: Final = 10.0
RETRY_BURST: Final = 100


class RateLimiter(Protocol):
    """Decides the delay before a key's next try."""

    def when(self, key: Hashable) -> float:
        """Return the seconds to wait, and count one more failure."""
        ...

    def forget(self, key: Hashable) -> None:
        """Count from zero again: the key succeeded."""
        ...

    def failures(self, key: Hashable) -> int:
        """Return how often the key failed since it was last forgotten."""
        ...


class ItemExponential:
    """Per-key exponential backoff with up to `jitter` (a fraction) added, so that keys that fail together spread."""

    def __init__(
        self, rng: Random, *, base: float = BASE_DELAY, maximum: float = MAX_DELAY, jitter: float = 0.1
    ) -> None:
        self._rng = rng
        self._base = base
        self._maximum = maximum
        self._jitter = jitter
        self._failures: dict[Hashable, int] = {}

    def when(self, key: Hashable) -> float:
        """Return the seconds to wait, and count one more failure."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = self._base * 2.0 ** min(count, _MAX_DOUBLINGS)
        return min(self._maximum, delay * (1 + self._jitter * self._rng.random()))

    def forget(self, key: Hashable) -> None:
        """Count from zero again."""
        self._failures.pop(key, None)

    def failures(self, key: Hashable) -> int:
        """Return the failures counted."""
        return self._failures.get(key, 0)


class Bucket:
    """One token bucket for all keys: a reservation may lie in the future, so a burst of failures spreads out."""

    def __init__(
        self, clock: Callable[[], float], *, rate: float = RETRIES_PER_SECOND, burst: int = RETRY_BURST
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = clock()

    def reserve(self) -> float:
        """Take one token, now or in the future; return the seconds until it is there."""
        delay = self._wait()
        self._tokens -= 1
        return delay

    def reserve_within(self, longest: float) -> float | None:
        """Take one token as `reserve` does; take none, and return None, if it is more than `longest` seconds away."""
        delay = self._wait()
        if delay > longest:
            return None
        self._tokens -= 1
        return delay

    def _wait(self) -> float:
        """Add the tokens that came meanwhile; return the seconds until one is there."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1 - self._tokens) / self._rate)


class DefaultLimiter:
    """client-go's default: the longer of the key's own backoff and the overall bucket's."""

    def __init__(self, items: ItemExponential, bucket: Bucket) -> None:
        self._items = items
        self._bucket = bucket

    def when(self, key: Hashable) -> float:
        """Return the seconds to wait, and count one more failure."""
        return max(self._items.when(key), self._bucket.reserve())

    def forget(self, key: Hashable) -> None:
        """Count from zero again."""
        self._items.forget(key)

    def failures(self, key: Hashable) -> int:
        """Return the failures counted."""
        return self._items.failures(key)
