"""A cluster whose VMs, pods and migrations only the test changes.

For tests of waits and watches: the test acts as the controller, the scheduler and other users, on the loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.resources import PODS
from tests.model.rules import Document
from tests.model.server import ApiServer


def now() -> float:
    """Return the loop's time, which begins at 0."""
    return asyncio.get_running_loop().time()


def later(seconds: float, act: Callable[..., Any], *arguments: Any, **names: Any) -> None:
    """Call a function after some seconds, while the test waits."""
    asyncio.get_running_loop().call_later(seconds, lambda: act(*arguments, **names))


@dataclass(repr=False)
class Staged(ApiServer):
    """One API server whose objects a test sets by name; all are in `default`."""

    def vm(self, name: str = "vm-1", *, running: bool = True, **status: Any) -> None:
        """Create a VM, or change its status; `conditions` are (type, status, reason, message)."""
        if "conditions" in status:
            status["conditions"] = [
                dict(zip(("type", "status", "reason", "message"), given, strict=False))
                for given in status["conditions"]
            ]
        spec = {"resources": {"cpu": "0.1", "memory": "0.1"}, "running": running}
        self.put(VIRTUAL_MACHINES.plural, f"default/{name}", spec=spec, status={"phase": "Pending", **status})

    def pod(self, name: str, vm: str = "vm-1", *, owned: bool = True, node: str | None = None, **parts: Any) -> None:
        """Create a launcher pod, or change it; `waits` is the scheduler's reason to give it no node."""
        metadata: Document = {"labels": {names.VM_LABEL: vm}, "annotations": {names.INCARNATION: "0"}}
        metadata["finalizers"] = parts.get("finalizers", [])
        if owned:
            owner = self.objects[VIRTUAL_MACHINES.plural, f"default/{vm}"]["metadata"]["uid"]
            metadata["ownerReferences"] = [
                {"apiVersion": names.API_VERSION, "kind": names.VM_KIND, "name": vm, "uid": owner, "controller": True}
            ]
        unscheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": parts.get("waits"),
        }
        status = {"phase": parts.get("phase", "Pending"), "conditions": [unscheduled] if "waits" in parts else []}
        spec = {"nodeName": node} if node else {}
        self.put(PODS.plural, f"default/{name}", metadata=metadata, spec=spec, status=status)

    def migration(self, name: str, **status: Any) -> None:
        """Change a migration's status."""
        self.set_status(MIGRATIONS, f"default/{name}", status)
