"""The pace of live migrations that share the nodes' links: max-min fairness.

Guarantees: pure, and the same for the same moves in whatever order. A move uses two links: its source's way out, and
its target's way in. No link carries more than its capacity. A move below its cap has as much as any other on one of its
links, and that link is full; so what a move cannot use goes to the others.

Cost: a link *binds* if its moves could use more than its capacity. Only moves that are joined by binding links affect
each other's pace, and only these are read. In a drain to targets that get one move each, they are the moves of its
source. Where the targets' ways in bind, too, exact fairness reaches beyond the two links of a move: at worst to all
that copy, five within KubeVirt's limits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import msgspec


class Link(NamedTuple):
    """One direction of a node's network."""

    node: str
    inbound: bool


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """A move that copies: a unique key, its two nodes, and its cap in bytes a second (infinity: none)."""

    key: str
    source: str
    target: str
    cap: float = math.inf

    @property
    def links(self) -> tuple[Link, Link]:
        """The links that it uses."""
        return Link(self.source, inbound=False), Link(self.target, inbound=True)


def affected(
    links: Iterable[Link], transfers_on: Callable[[Link], Collection[Transfer]], capacity: float
) -> tuple[Transfer, ...]:
    """Return the transfers whose pace may change when a transfer on these links has come, gone, or got another cap.

    `transfers_on` looks up the transfers on a link as they are now; `capacity`, of each link, is in bytes a second.
    `paces` of the transfers returned is exact, without any others.
    """
    found: dict[str, Transfer] = {}
    queue = list(links)
    seen = set(queue)
    while queue:
        for transfer in transfers_on(queue.pop()):
            found[transfer.key] = transfer
            for link in transfer.links:
                if link not in seen:
                    seen.add(link)
                    if _binds(transfers_on(link), capacity):
                        queue.append(link)
    return tuple(found.values())


def paces(transfers: Iterable[Transfer], capacity: float) -> dict[str, float]:
    """Return the pace of each transfer, by key, in bytes a second like `capacity`, that of each link.

    `transfers` has all those on each link that binds. Their paces grow alike, until a cap is reached or a link is full.
    """
    by_cap = sorted(transfers, key=lambda transfer: transfer.cap)
    sharing = _Sharing(by_cap, capacity)
    for transfer in by_cap:
        sharing.fill_links(transfer.cap)
        sharing.stop(transfer, min(transfer.cap, capacity))
    return sharing.paces


class _Sharing:
    """Paces that grow from 0: those that have stopped, and the links that bind with the transfers that still grow."""

    def __init__(self, by_cap: Iterable[Transfer], capacity: float) -> None:
        self.paces: dict[str, float] = {}
        on: dict[Link, dict[str, Transfer]] = defaultdict(dict)
        for transfer in by_cap:
            for link in transfer.links:
                on[link][transfer.key] = transfer
        self._growing = {link: here for link, here in on.items() if _binds(here.values(), capacity)}
        self._room = dict.fromkeys(self._growing, capacity)
        self._levels = [(capacity / len(here), link) for link, here in self._growing.items()]
        heapify(self._levels)

    def stop(self, transfer: Transfer, pace: float) -> None:
        """Let a transfer grow no more, unless it has stopped before."""
        if transfer.key in self.paces:
            return
        self.paces[transfer.key] = pace
        for link in transfer.links:
            if link in self._growing:
                del self._growing[link][transfer.key]
                self._room[link] -= pace

    def fill_links(self, pace: float) -> None:
        """Let all paces grow to this one, and stop those on links that are full before."""
        while self._levels and self._levels[0][0] < pace:
            level, link = heappop(self._levels)
            here = tuple(self._growing[link].values())
            if here and (risen := self._room[link] / len(here)) > level:  # others have stopped at less since
                heappush(self._levels, (risen, link))
                continue
            for transfer in here:
                self.stop(transfer, level)


def _binds(transfers: Iterable[Transfer], capacity: float) -> bool:
    """Whether these transfers, all of a link, could use more than its capacity. Their order does not matter."""
    return math.fsum(min(transfer.cap, capacity) for transfer in transfers) > capacity
