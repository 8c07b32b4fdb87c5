"""Who hears of a store's changes, and what becomes of a listener that fails.

Guarantees: a listener that raises is logged with its traceback and counted; it stops neither the other listeners nor
whoever feeds the store. What it knows is repaired: it hears of the object as gone and as new again, and one that keeps
sums begins anew from what the stores hold, at most once a minute. An object that it cannot take in at all is left out
of what it knows until that object changes, as in a process that starts now.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

T = TypeVar("T")
_log = structlog.get_logger(__name__)

Changed: TypeAlias = Callable[[T | None, T | None], None]
"""Called with (old, new): (None, new) is an addition, (old, None) a deletion."""
Contents: TypeAlias = Callable[[], Iterable[tuple[str, T]]]
"""The keys and objects that a store holds now."""

REBUILD_EVERY: Final = 60.0
"""Seconds between two rebuilds of one listener: each looks at every object."""


MOST_TOLD: Final = 1000
"""Objects of which each listener remembers that it failed on them, so as not to log it again."""


class Subscription(Generic[T]):
    """One listener, of one store or of several that hold one kind. `name` is what metrics call it.

    `reset` makes a listener that keeps sums forget everything. A listener without it has to bear hearing of an object
    as gone and as new again, whatever became of the event before. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        changed: Changed[T],
        *,
        name: str,
        reset: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.changed = changed
        self.failures = 0
        """Events on which the listener raised."""
        self.unsettled = False
        """Whether there is anything left to put right, so that changes have to come through `tell`."""
        self._reset = reset
        self._clock = clock
        self._stores: list[Contents[T]] = []
        # Keys of the objects that the listener raised on when it heard of them as new.
        self._left_out: set[str] = set()
        # Keys whose failure was logged; bounded, or a fleet of odd objects would stay here for good.
        self._told: OrderedDict[str, None] = OrderedDict()
        # Whether the sums cannot be trusted.
        self._spoiled = False
        self._rebuilt_at = float("-inf")

    def attach(self, contents: Contents[T]) -> None:
        """Take in a store of which the listener hears from now on."""
        self._stores.append(contents)

    def tell(self, key: str, old: T | None, new: T | None) -> None:
        """Tell a listener that is unsettled of one change. Never raises what the listener raises."""
        if key in self._left_out:
            self._left_out.discard(key)
            old = None
        if old is not None or new is not None:
            try:
                self.changed(old, new)
            except Exception:  # noqa: BLE001 - a defect that one object meets costs that object at most
                self.repair(key, old, new)
        self.mend()

    def repair(self, key: str, old: T | None, new: T | None) -> None:
        """Put right what the listener knows, from within the `except` of the change that it raised on."""
        self.failures += 1
        if key not in self._told:  # one that stays odd is told once, and counted each time
            _log.exception("a store's listener failed", listener=self.name, object=key)
        self._told[key] = None
        self._told.move_to_end(key)
        if len(self._told) > MOST_TOLD:
            self._told.popitem(last=False)
        if old is not None and not self._bears(old, None):
            _log.error("a store's listener cannot take an object back", listener=self.name, object=key)
        if new is not None and (old is None or not self._bears(None, new)):
            self._left_out.add(key)
        self._spoiled = self._reset is not None
        self.mend()

    def mend(self) -> None:
        """Rebuild the listener's sums from the stores, if they are spoiled and the last rebuild is a minute ago."""
        if self._spoiled and self._reset is not None and self._clock() >= self._rebuilt_at + REBUILD_EVERY:
            self._rebuilt_at = self._clock()
            self._rebuild(self._reset)
        self.unsettled = self._spoiled or bool(self._left_out)

    def _rebuild(self, reset: Callable[[], None]) -> None:
        try:
            reset()
        except Exception:  # noqa: BLE001 - what it knows stays spoiled, which is tried again
            _log.exception("a store's listener cannot be rebuilt", listener=self.name)
            return
        self._spoiled = False
        self._left_out = {key for contents in self._stores for key, item in contents() if not self._bears(None, item)}
        _log.warning("a store's listener was rebuilt", listener=self.name, left_out=len(self._left_out))

    def _bears(self, old: T | None, new: T | None) -> bool:
        try:
            self.changed(old, new)
        except Exception:  # noqa: BLE001 - what failed is told where it failed first
            return False
        return True
