"""A controller: the sources of its keys, and their reconciler. `controller.engine.workers` runs the reconciles.

Guarantees: a controller that has not started queues no key, listens to no store and has no state. The reconciler has
taken over from the previous leader before the first key is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from controller.engine.workers import Result

Add: TypeAlias = Callable[[str, str], None]
"""Queues a key, with its cause for the log."""
Source: TypeAlias = Callable[[Add], None]
"""Queues the keys that need a reconcile now, and from then on the keys that a change affects."""


class Reconciler(Protocol):
    """Reconciles the keys of a controller."""

    def begin(self) -> None:
        """Take over from the previous leader, and start to listen. The caches have synced."""
        ...

    async def reconcile(self, key: str) -> Result:
        """Bring the object of the key a step closer to its desired state."""
        ...


R_co = TypeVar("R_co", bound=Reconciler, covariant=True)


@dataclass(frozen=True, slots=True)
class Controller(Generic[R_co]):
    """A controller: its name in metrics and logs, the sources of its keys, and their reconciler."""

    name: str
    sources: tuple[Source, ...]
    reconciler: R_co

    def start(self, add: Add) -> None:
        """Start the reconciler, then the sources, which queue keys through `add`."""
        self.reconciler.begin()
        for source in self.sources:
            source(add)


class Channel:
    """A source of keys for parts of the program that do not know the queue: they call `put`.

    A key put before the controller has started is dropped, since the start queues every key anyway.
    """

    def __init__(self) -> None:
        self._adds: list[Add] = []

    def __call__(self, add: Add) -> None:
        """Start as a source: pass the keys of later `put` calls to `add`."""
        self._adds.append(add)

    def put(self, key: str, cause: str) -> None:
        """Queue a key."""
        for add in self._adds:
            add(key, cause)
