"""What a drain is asked to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """The nodes to drain, `parallel_nodes` at once, and the namespace of the VMs to move (None: all namespaces).

    `timeout` is in seconds, for all nodes together; None means no timeout. `reason`, `priority` and `strategy` are
    those of the migrations; a `strategy` of None is the controller's.
    """

    nodes: tuple[str, ...]
    reason: str = "Drain"
    timeout: float | None = None
    parallel_nodes: int = 1
    namespace: str | None = None
    priority: str = "system-critical"
    strategy: str | None = None
