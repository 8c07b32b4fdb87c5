"""What the pods on each node hold, whoever's they are: read from the API server, and kept up to date by the caches.

Guarantees:

- All pods are listed at most every `READ_PERIOD`, sooner only where they are so few that it costs nothing
  (`_SECONDS_A_PAGE`), and only when somebody asks. No reading is older than what it is asked as of.
- Between two readings the pods that the caches show count as they are now, in O(1) a change. A pod without a node
  counts on the one that the scheduler nominated for it.
- A pod whose requests cannot be read makes what its node holds unknown, and is logged once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
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
"""Seconds for which one reading is used."""
_SECONDS_A_PAGE: Final = 0.25
"""How long at least from one reading to the next, by the full pages that it took: with 10,000 pods `READ_PERIOD`."""
_NEVER: Final = float("-inf")


class Holdings:
    """The last reading of the pods of some namespaces (None: of all), and what has changed since."""

    def __init__(self, client: Lister, namespaces: Iterable[str | None], monotonic: Callable[[], float]) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)
        self._monotonic = monotonic
        self._pods = Ledger()
        # Pods whose requests could not be read at the last reading, and why.
        self._unreadable: frozenset[tuple[str, str]] = frozenset()
        self._read_at = _NEVER
        self._next_reading = _NEVER
        self._reading = asyncio.Lock()
        # Pods that changed while a reading is under way, by UID; None if it is not.
        self._changed: dict[str, Pod | None] | None = None
        self.kept = False
        """Whether there is a reading, or one is under way, so that changes matter."""

    def on(self, node: str) -> Amount:
        """Return what pods hold on a node, as of the last reading and the caches; nothing before the first reading."""
        return self._pods.on(node)

    async def refresh(self, as_of: float) -> float:
        """Read what is held where, if the last reading is from before a time (monotonic) or too old.

        Return the seconds until it may be read, or 0. A caller that comes while a reading is under way waits for it,
        and shares the next one if that is too old.
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
        self.kept = True
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
            self.kept = self._read_at != _NEVER
        self._next_reading = began + min(READ_PERIOD, count // PAGE_SIZE * _SECONDS_A_PAGE)
        for key, why in sorted(unreadable - self._unreadable):
            _log.warning("a pod's requests cannot be read: room on its node is for the scheduler", pod=key, error=why)
        self._unreadable = frozenset(unreadable)

    def _count(self, pod: Pod, unreadable: Callable[[Pod, str], None] = lambda *_: None) -> None:
        if (held := capacity.holding(pod, unreadable)) is not None:
            self._pods.put(pod.metadata.uid, *held)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Take in what a cache shows, while a reading is kept."""
        for pod in (old, new):
            if pod is not None:
                self._pods.drop(pod.metadata.uid)
                if self._changed is not None:
                    self._changed[pod.metadata.uid] = new if pod is new else None
        if new is not None:
            self._count(new)

    def forget(self) -> None:
        """Keep no reading, since nobody will ask for a while; one that is under way is kept."""
        if self._changed is None:
            self._pods, self._read_at, self.kept = Ledger(), _NEVER, False
