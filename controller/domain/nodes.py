"""Whether a node's kubelet can finish the deletion of its pods: a pure function of the node.

Guarantees: an unknown state (a node that never reported, or that the controller may not read) counts as healthy.
"""

from __future__ import annotations

from typing import Final

from controller.kube.kinds import Node

OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
"""The taint by which an administrator declares a node shut down, so that Kubernetes removes its pods."""


def silence(node: Node | None) -> str | None:
    """Return why a node's kubelet finishes no deletion now; None if it does, or if Kubernetes removes the pods itself.

    Kubernetes does so if the node no longer exists (None), or is not ready and tainted out-of-service.
    """
    if node is None or any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints):
        return None
    ready = next((condition for condition in node.status.conditions if condition.type == "Ready"), None)
    if ready is None or ready.status == "True":
        return None
    why = f" ({ready.reason})" if ready.reason else ""
    return f"node {node.metadata.name} is not ready{why}"


def revival(name: str) -> str:
    """Return what ends the wait for the pods of a silent node, for a sentence with "until"."""
    return f"node {name} is back, tainted {OUT_OF_SERVICE} or deleted"
