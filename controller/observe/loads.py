"""Who holds how much on which node, and the sum of each node.

Guarantees: a change costs O(1); sums are exact, so what was added and taken away leaves nothing; while one of those on
a node holds an unknown amount, the sum is unknown, and no longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from controller.domain.capacity import NOTHING, Amount


@dataclass(slots=True)
class _Sum:
    known: Amount = NOTHING
    holders: int = 0
    unknown: int = 0


class Ledger:
    """Holdings by whoever holds them."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Amount]] = {}
        self._sums: dict[str, _Sum] = {}

    def __contains__(self, who: str) -> bool:
        return who in self._held

    def put(self, who: str, node: str, amount: Amount) -> None:
        """Let somebody hold so much on a node, and nothing else."""
        self.drop(who)
        self._held[who] = node, amount
        found = self._sums.setdefault(node, _Sum())
        found.known += replace(amount, unknown=False)
        found.holders += 1
        found.unknown += amount.unknown

    def drop(self, who: str) -> str | None:
        """Let somebody hold nothing; return the node on which something was held."""
        node, amount = self._held.pop(who, (None, NOTHING))
        if node is None:
            return None
        found = self._sums[node]
        found.known -= replace(amount, unknown=False)
        found.holders -= 1
        found.unknown -= amount.unknown
        if not found.holders:
            del self._sums[node]
        return node

    def on(self, node: str) -> Amount:
        """Return what is held on a node in all."""
        found = self._sums.get(node)
        return NOTHING if found is None else replace(found.known, unknown=found.unknown > 0)
