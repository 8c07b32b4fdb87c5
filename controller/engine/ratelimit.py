"""The delay of a failed key, as in client-go's default_rate_limiters.

Guarantees: the delay is about 5 ms after the first failure and doubles with each further one, up to 1000 s. All retries
together are limited to 10 a second after a burst of 100. New keys pass through `WorkQueue.add` and are never delayed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Final, Protocol

BASE_DELAY: Final = 0.005
MAX_DELAY: Final = 1000.0
_MAX_DOUBLINGS: Final = 18
"""5 ms doubled 18 times exceeds 1000 s; a larger exponent would overflow."""
RETRIES_PER_SECOND: Final = 10.0
RETRY_BURST: Final = 100


class RateLimiter(Protocol):
    """Decides the delay before a key's next retry."""

    def when(self, key: Hashable) -> float:
        """Return the seconds to wait, and count one more failure."""
        ...

    def forget(self, key: Hashable) -> None:
        """Reset the count: the key succeeded."""
        ...

    def failures(self, key: Hashable) -> int:
        """Return how many times the key failed since its last success."""
        ...


class ItemExponential:
    """Exponential backoff per key, lengthened by up to `jitter` (a fraction) so that keys that fail together spread."""

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
    """A token bucket. A token may be reserved in the future, so that a burst spreads out. `clock` is in seconds."""

    def __init__(
        self, clock: Callable[[], float], *, rate: float = RETRIES_PER_SECOND, burst: int = RETRY_BURST
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = clock()

    def reserve(self) -> float:
        """Take one token, now or in the future; return the seconds until it is available."""
        delay = self._wait()
        self._tokens -= 1
        return delay

    def reserve_within(self, longest: float) -> float | None:
        """Take one token as `reserve` does. If it is more than `longest` seconds away, take none and return None."""
        delay = self._wait()
        if delay > longest:
            return None
        self._tokens -= 1
        return delay

    def _wait(self) -> float:
        """Add the tokens accrued since the last call; return the seconds until one is available."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1 - self._tokens) / self._rate)


class DefaultLimiter:
    """client-go's default: the longer of the delays of the key's own backoff and of the shared bucket."""

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
