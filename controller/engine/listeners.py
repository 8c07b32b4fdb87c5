"""Subscriptions of listeners to a store, and the repair of a listener that raised.

Guarantees:

- A listener that raises is logged with its traceback and counted. It stops neither the other listeners nor the
  reflector that feeds the store.
- The state of that listener is repaired: it gets the object's deletion and addition again. A listener that keeps sums
  is rebuilt from the contents of its stores, at most once a minute.
- An object on whose addition the listener raises too is left out of its state until that object changes, just as
  after a restart of the process.
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
"""Returns the keys and objects of a store, as of now."""

REBUILD_EVERY: Final = 60.0
"""Minimum seconds between two rebuilds of one listener, each of which visits every object."""


MAX_LOGGED: Final = 1000
"""Keys per listener whose failure is remembered as logged, so that it is not logged again."""


class Subscription(Generic[T]):
    """One listener of one store, or of several stores of one kind. `name` is its name in metrics and the log.

    `reset` clears the state of a listener that keeps sums. A listener without `reset` has to accept the deletion and
    the addition of an object again, however far it processed the event before. `clock` is monotonic, in seconds.
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
        """Whether the listener still needs repair, so that changes have to go through `deliver`."""
        self._reset = reset
        self._clock = clock
        self._stores: list[Contents[T]] = []
        # Keys of the objects on whose addition the listener raised.
        self._left_out: set[str] = set()
        # Keys whose failure was logged; bounded, as every object of a fleet may be malformed.
        self._logged: OrderedDict[str, None] = OrderedDict()
        # Whether the sums may be wrong.
        self._spoiled = False
        self._rebuilt_at = float("-inf")

    def attach(self, contents: Contents[T]) -> None:
        """Add a store whose changes the listener gets from now on."""
        self._stores.append(contents)

    def deliver(self, key: str, old: T | None, new: T | None) -> None:
        """Pass one change to a listener that is `unsettled`. Never raises what the listener raises."""
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
        """Repair the state of the listener after it raised on this change. Call it within the `except` block."""
        self.failures += 1
        if key not in self._logged:  # a repeated failure is logged once, and counted each time
            _log.exception("a store's listener failed", listener=self.name, object=key)
        self._logged[key] = None
        self._logged.move_to_end(key)
        if len(self._logged) > MAX_LOGGED:
            self._logged.popitem(last=False)
        if old is not None and not self._accepts(old, None):
            _log.error("a store's listener failed on a deletion", listener=self.name, object=key)
        if new is not None and (old is None or not self._accepts(None, new)):
            self._left_out.add(key)
        self._spoiled = self._reset is not None
        self.mend()

    def mend(self) -> None:
        """Rebuild the listener's sums from its stores, if they may be wrong and the last rebuild is a minute ago."""
        if self._spoiled and self._reset is not None and self._clock() >= self._rebuilt_at + REBUILD_EVERY:
            self._rebuilt_at = self._clock()
            self._rebuild(self._reset)
        self.unsettled = self._spoiled or bool(self._left_out)

    def _rebuild(self, reset: Callable[[], None]) -> None:
        try:
            reset()
        except Exception:  # noqa: BLE001 - the sums stay marked as wrong, and the rebuild is tried again
            _log.exception("a store's listener cannot be rebuilt", listener=self.name)
            return
        self._spoiled = False
        self._left_out = {key for contents in self._stores for key, item in contents() if not self._accepts(None, item)}
        _log.warning("a store's listener was rebuilt", listener=self.name, left_out=len(self._left_out))

    def _accepts(self, old: T | None, new: T | None) -> bool:
        try:
            self.changed(old, new)
        except Exception:  # noqa: BLE001 - the caller has logged the first failure
            return False
        return True
