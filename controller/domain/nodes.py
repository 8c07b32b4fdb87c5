"""Whether a node's kubelet can finish the deletion of its pods: a pure function of the node.

Guarantees: an unknown state (a node that never reported, or that the controller may not read) counts as healthy.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from controller.kube.kinds import Node
from controller.kube.meta import Condition
from controller.kube.times import parse_timestamp

OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
"""The taint by which an administrator declares a node shut down, so that Kubernetes removes its pods."""


def silence(node: Node | None) -> str | None:
    """Return why a node's kubelet finishes no deletion now; None if it does, or if Kubernetes removes the pods itself.

    Kubernetes does so if the node no longer exists (None), or is not ready and tainted out-of-service.
    """
    if node is None or any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints):
        return None
    ready = _ready(node)
    if ready is None or ready.status == "True":
        return None
    why = f" ({ready.reason})" if ready.reason else ""
    return f"node {node.metadata.name} is not ready{why}"


def silent_since(node: Node) -> datetime | None:
    """Return since when a node has not been ready; None if it does not say so."""
    ready = _ready(node)
    return parse_timestamp(ready.last_transition_time) if ready is not None and ready.status != "True" else None


def _ready(node: Node) -> Condition | None:
    return next((condition for condition in node.status.conditions if condition.type == "Ready"), None)


def revival(name: str) -> str:
    """Return what ends the wait for the pods of a silent node, for a sentence with "until"."""
    return f"node {name} is back, tainted {OUT_OF_SERVICE} or deleted"
