"""Read your own writes: decide nothing for an object until the caches show what was last written for it.

A port of the idea of Kubernetes' pkg/controller/util/consistency (KEP-5647). Guarantees: only the object written
for waits, never the others; a version that is no number never blocks (fail open); memory is bounded by the
objects whose writes are still on their way back.
"""

from __future__ import annotations

from typing import Any

from controller.engine.store import Store


class ConsistencyStore:
    """Which versions each owner's caches have to reach."""

    def __init__(self) -> None:
        self._written: dict[str, dict[int, tuple[Store[Any], str]]] = {}

    def wrote(self, owner: str, store: Store[Any], resource_version: str) -> None:
        """Remember a write for `owner` that `store` will show at this version."""
        self._written.setdefault(owner, {})[id(store)] = (store, resource_version)

    def ready(self, owner: str) -> bool:
        """Whether every write for `owner` has come back."""
        pending = self._written.get(owner)
        if pending is None:
            return True
        if all(store.has_reached(version) for store, version in pending.values()):
            del self._written[owner]
            return True
        return False

    def __len__(self) -> int:
        """Return the owners with writes on their way."""
        return len(self._written)
