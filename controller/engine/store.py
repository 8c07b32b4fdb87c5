"""A store: the newest known state of every object of one kind, with one index and listeners.

Guarantees:

- Reads are O(1) and copy nothing.
- An older state never replaces a newer state of the same object.
- After `replace` the store holds exactly the objects of the list, and listeners have got every difference, deletions
  included.
- The store's resource version never decreases between two lists, and follows bookmarks too.
- An exception of a listener, or of the index function on one object, never interrupts a change of the store
  (`controller.engine.listeners`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import structlog

from controller.engine.changes import Change, HasMetadata, revision
from controller.engine.listeners import Changed, Subscription

T = TypeVar("T", bound=HasMetadata)
_log = structlog.get_logger(__name__)


def gone(old: T | None, new: T | None) -> T | None:
    """Return the object that a change removed; None if it removed none.

    The object was deleted, or an object of the same name and another UID took its place in one step.
    """
    replaced = old is not None and (new is None or new.metadata.uid != old.metadata.uid)
    return old if replaced else None


class Store(Generic[T]):
    """Objects by `namespace/name`, and by one index."""

    def __init__(self, index: Callable[[T], str | None] | None = None) -> None:
        self._objects: dict[str, T] = {}
        self._index_of = index
        self._index: dict[str, dict[str, T]] = {}
        self.subscriptions: list[Subscription[T]] = []
        """The listeners, in the order in which they get each change."""
        self.resource_version = ""
        self._revision = -1

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the objects, in no order. Do not await during the iteration."""
        return iter(self._objects.values())

    def listen(self, changed: Changed[T], *, name: str) -> None:
        """Call `changed` at every later change. Use `subscribe` for a listener that keeps sums over objects."""
        self.subscribe(Subscription(changed, name=name))

    def subscribe(self, subscription: Subscription[T]) -> None:
        """Pass every later change to a listener, which may be subscribed to other stores too."""
        subscription.attach(self._objects.items)
        self.subscriptions.append(subscription)

    def get(self, key: str) -> T | None:
        """Return the object with the key `namespace/name`; None if there is none."""
        return self._objects.get(key)

    def by_index(self, value: str) -> tuple[T, ...]:
        """Return the objects with this index value."""
        bucket = self._index.get(value)
        return tuple(bucket.values()) if bucket else ()

    @property
    def filled(self) -> bool:
        """Whether the store has taken a list. Before that an empty store does not mean that there are no objects."""
        return self.resource_version != ""

    def has_reached(self, resource_version: str) -> bool:
        """Whether the store shows the cluster as of this resource version or later.

        True when either version is no number, so that they cannot be compared; False before the first list.
        """
        return self._revision >= revision(resource_version) or (self._revision < 0 and self.filled)

    def replace(self, objects: Iterable[T], resource_version: str) -> None:
        """Take a complete list; objects that it lacks are deleted."""
        fresh = {item.metadata.key: item for item in objects}
        self.resource_version, self._revision = resource_version, revision(resource_version)
        for key in self._objects.keys() - fresh.keys():
            self._set(key, None)
        for key, item in fresh.items():
            known = self._objects.get(key)
            if known is None or known.metadata.resource_version != item.metadata.resource_version:
                self._set(key, item)

    def apply(self, change: Change[T]) -> None:
        """Take one change from a watch."""
        at = change.revision
        if at > self._revision:  # and so newer than every object here
            self.resource_version, self._revision = change.item.metadata.resource_version, at
        else:
            known = self._objects.get(change.key)
            if known is not None and revision(known.metadata.resource_version) > at:
                return
        self._set(change.key, None if change.deleted else change.item)

    def remove(self, namespace: str, name: str, uid: str) -> None:
        """Take the deletion of an object that does not decode. An argument that could not be read is empty."""
        known = self._objects.get(f"{namespace}/{name}") if name else None
        if known is None and uid:
            known = next((item for item in self._objects.values() if item.metadata.uid == uid), None)
        if known is not None and uid in ("", known.metadata.uid):
            self._set(known.metadata.key, None)

    def bookmark(self, resource_version: str) -> None:
        """Take a bookmark: every change up to this resource version has arrived."""
        at = revision(resource_version)
        if at > self._revision:
            self.resource_version, self._revision = resource_version, at
        for subscription in self.subscriptions:
            subscription.mend()

    def _set(self, key: str, item: T | None) -> None:
        old = self._objects.pop(key, None) if item is None else self._objects.get(key)
        if item is not None:
            self._objects[key] = item
        elif old is None:
            return
        if self._index_of is not None:
            self._reindex(key, old, item)
        for subscription in self.subscriptions:
            if subscription.unsettled:
                subscription.deliver(key, old, item)
                continue
            try:
                subscription.changed(old, item)  # called directly: this is the hot path
            except Exception:  # noqa: BLE001 - a defect that one object meets costs that object at most
                subscription.repair(key, old, item)

    def _reindex(self, key: str, old: T | None, item: T | None) -> None:
        before = self._index_value(old) if old is not None else None
        after = self._index_value(item) if item is not None else None
        if before is not None and before != after:
            bucket = self._index.get(before, {})
            bucket.pop(key, None)
            if not bucket:
                self._index.pop(before, None)
        if after is not None and item is not None:
            self._index.setdefault(after, {})[key] = item

    def _index_value(self, item: T) -> str | None:
        try:
            return self._index_of(item) if self._index_of is not None else None
        except Exception:  # noqa: BLE001 - a defect that one object meets costs that object at most
            _log.exception("cannot index an object", object=item.metadata.key)
            return None
