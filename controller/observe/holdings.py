"""The resources that the pods of all owners request on each node: listed from the API server, updated by the caches.

Guarantees:

- All pods are listed at most every `READ_PERIOD`, more often only where they fit on few pages (`_SECONDS_A_PAGE`), and
  only on demand. A list is never older than the time for which the caller asks.
- Between two lists the pods in the caches count with their current state, in O(1) a change. A pod without a node counts
  on its nominated node.
- A pod whose requests cannot be parsed makes the sum of its node unknown, and is logged once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import structlog

from controller.domain import capacity
from controller.domain.capacity import Amount
from controller.engine.listing import PAGE_SIZE, everything
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.kube.verbs import Lister
from controller.observe.loads import Ledger

_log = structlog.get_logger(__name__)

READ_PERIOD: Final = 5.0
"""Seconds for which one list is used."""
_SECONDS_A_PAGE: Final = 0.25
"""Minimum seconds between two lists for each full page of the last one, up to `READ_PERIOD`."""
_NEVER: Final = float("-inf")


class Holdings:
    """The last list of the pods of some namespaces (None: of all), with the changes since."""

    def __init__(self, client: Lister, namespaces: Iterable[str | None], monotonic: Callable[[], float]) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)
        self._monotonic = monotonic
        self._pods = Ledger()
        # Pods of the last list whose requests could not be parsed, each with the reason.
        self._unreadable: frozenset[tuple[str, str]] = frozenset()
        self._read_at = _NEVER
        self._next_reading = _NEVER
        self._reading = asyncio.Lock()
        # Pods that changed during the list in flight, by UID; None without one.
        self._changed: dict[str, Pod | None] | None = None
        self.active = False
        """Whether there is a list, or one is in flight, so that changes have to be reported."""

    def on(self, node: str) -> Amount:
        """Return the requests of the pods on a node, by the last list and the caches; empty before the first list."""
        return self._pods.on(node)

    def below(self, node: str, priority: int) -> Iterator[tuple[int, Amount]]:
        """Yield the lower priorities, the lowest first, each with the requests of its pods on a node, if any."""
        return self._pods.below(node, priority)

    async def refresh(self, as_of: float) -> float:
        """List the pods again if the last list began before `as_of` (monotonic seconds) or is too old.

        Returns 0, or the seconds until the pods may be listed. Concurrent callers wait for the list in flight, and
        share the next one if that is too old for them.
        """
        async with self._reading:
            now = self._monotonic()
            if self._read_at >= as_of and self._read_at > now - READ_PERIOD:
                return 0.0
            if now < self._next_reading:
                return self._next_reading - now
            await self._read(now)
        return 0.0

    async def _read(self, began: float) -> None:
        self._changed = {}
        self.active = True
        try:
            found = [await everything(self._client, PODS, namespace=namespace) for namespace in self._namespaces]
            self._pods = Ledger()
            unreadable: set[tuple[str, str]] = set()
            count = 0
            for pods in found:
                count += len(pods)
                for pod in pods:
                    self._count(pod, lambda pod, why: unreadable.add((pod.metadata.key, why)))
            for uid, newest in self._changed.items():
                self._pods.drop(uid)
                if newest is not None:
                    self._count(newest)
            self._read_at = began
        finally:
            self._changed = None
            self.active = self._read_at != _NEVER
        self._next_reading = began + min(READ_PERIOD, count // PAGE_SIZE * _SECONDS_A_PAGE)
        for key, why in sorted(unreadable - self._unreadable):
            _log.warning("a pod's requests cannot be parsed: its node's free capacity is unknown", pod=key, error=why)
        self._unreadable = frozenset(unreadable)

    def _count(self, pod: Pod, unreadable: Callable[[Pod, str], None] = lambda *_: None) -> None:
        if (held := capacity.holding(pod, unreadable)) is not None:
            self._pods.put(pod.metadata.uid, *held, pod.spec.priority)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Apply a change of a cache; only needed while `active`."""
        for pod in (old, new):
            if pod is not None:
                self._pods.drop(pod.metadata.uid)
                if self._changed is not None:
                    self._changed[pod.metadata.uid] = new if pod is new else None
        if new is not None:
            self._count(new)

    def forget(self) -> None:
        """Drop the last list when no caller needs it for a while; a list in flight is retained."""
        if self._changed is None:
            self._pods, self._read_at, self.active = Ledger(), _NEVER, False
