"""Read-your-writes: an object is not reconciled until the caches show the last writes made for it.

It ports the idea of Kubernetes' pkg/controller/util/consistency (KEP-5647). Guarantees: only the object for which a
write was made waits, never another; a resource version that is no number never blocks (fail open); memory is bounded
by the objects whose writes the caches do not show yet.
"""

from __future__ import annotations

from typing import Any

from controller.engine.store import Store


class ConsistencyStore:
    """The resource version that each cache has to reach, for each owner (the object for which a write was made)."""

    def __init__(self) -> None:
        self._written: dict[str, dict[int, tuple[Store[Any], str]]] = {}

    def wrote(self, owner: str, store: Store[Any], resource_version: str) -> None:
        """Record a write for `owner` that `store` shows once it reaches this resource version."""
        self._written.setdefault(owner, {})[id(store)] = (store, resource_version)

    def ready(self, owner: str) -> bool:
        """Whether the caches show every write recorded for `owner`."""
        pending = self._written.get(owner)
        if pending is None:
            return True
        if all(store.has_reached(version) for store, version in pending.values()):
            del self._written[owner]
            return True
        return False

    def __len__(self) -> int:
        """Return the number of owners with a write that the caches do not show yet."""
        return len(self._written)
