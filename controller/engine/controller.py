"""A controller: where its keys come from, and how one of them is reconciled. `controller.engine.workers` does the work.

Guarantees: a controller that has not started queues nothing, listens to nothing and remembers nothing; the reconciler
has taken over from the process before when the first key is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from controller.engine.workers import Result

Add: TypeAlias = Callable[[str, str], None]
"""Queues a key, with its cause for the log."""
Source: TypeAlias = Callable[[Add], None]
"""Queues the keys that there is anything to do for, and from then on those that a change is about."""


class Reconciler(Protocol):
    """What a controller does for a key."""

    def begin(self) -> None:
        """Take over from the process before, and listen; the caches are full."""
        ...

    async def reconcile(self, key: str) -> Result:
        """Bring what the key stands for a step closer to what is wanted."""
        ...


R_co = TypeVar("R_co", bound=Reconciler, covariant=True)


@dataclass(frozen=True, slots=True)
class Controller(Generic[R_co]):
    """What metrics and logs call it, where its keys come from, and what is done for them."""

    name: str
    sources: tuple[Source, ...]
    reconciler: R_co

    def start(self, add: Add) -> None:
        """Begin, and from now on queue through `add`."""
        self.reconciler.begin()
        for source in self.sources:
            source(add)


class Channel:
    """A source whose keys are put into it by a part of the program that need not know the queue.

    What is put in before the controller has started is dropped: a start looks at everything.
    """

    def __init__(self) -> None:
        self._adds: list[Add] = []

    def __call__(self, add: Add) -> None:
        """Be a source."""
        self._adds.append(add)

    def put(self, key: str, cause: str) -> None:
        """Queue a key."""
        for add in self._adds:
            add(key, cause)
