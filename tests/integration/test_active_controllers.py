"""Three controllers that act at once, with leader election switched off: the guarantees that remain without a leader.

One live pod a VM is guaranteed only under one leader. Without one, the guarded status still names the one pod that
counts: a second pod is deleted within `BOUND`, and everything settles as with a leader. A watch of the pods decides,
not a controller's log; `--log-cli-level=INFO` shows its counts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.live_pods import LivePods
from tests.integration.tools import Controller, Kubectl, vm_manifest

_log = logging.getLogger(__name__)

VMS: Final = tuple(f"vm-{number}" for number in range(30))
BOUND: Final = 5.0
"""Seconds within which a second pod is deleted; a loaded machine may need most of them for one reconcile."""
TIMEOUT: Final = 60.0


@dataclass(slots=True)
class TimedPods(LivePods):
    """Live pods of each VM, and for how many seconds a VM had more than one, by this machine's clock."""

    spans: list[float] = field(default_factory=list)
    since: dict[str, float] = field(default_factory=dict)

    def take(self, kind: str, pod: Any) -> None:
        """Apply one event."""
        LivePods.take(self, kind, pod)
        owners = [vm for vm, _ in self._owners.values()]
        doubled = {vm for vm in owners if owners.count(vm) > 1}
        for vm in doubled - self.since.keys():
            self.since[vm] = time.monotonic()
        for vm in self.since.keys() - doubled:
            self.spans.append(time.monotonic() - self.since.pop(vm))


@pytest.fixture
def controllers(plane: ControlPlane, tmp_path: Path) -> Iterator[list[Controller]]:
    """Run three controllers without leader election."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Controller.start(plane.kubeconfig, tmp_path / f"{number}.log")) for number in range(3)
        ]


def snapshot(kubectl: Kubectl) -> dict[str, Any]:
    """Return every VM, migration and pod, by kind and name."""
    items = kubectl.json("get", "vm,vmm,pods")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}


def of_kind(found: dict[str, Any], kind: str) -> list[Any]:
    """Return the objects of one kind."""
    return [item for item in found.values() if item["kind"] == kind]


def settled(found: dict[str, Any]) -> bool:
    """Whether every VM equals its spec, with one pod or none, and every migration has ended."""
    pods = {pod["metadata"]["name"]: pod for pod in of_kind(found, "Pod")}
    wanted = {
        vm["status"].get("podName")
        for vm in of_kind(found, "VirtualMachine")
        if vm["spec"]["running"] and vm["status"]["phase"] == "Running"
    }
    stopped = [vm for vm in of_kind(found, "VirtualMachine") if vm["status"]["phase"] == "Stopped"]
    return (
        len(wanted) + len(stopped) == len(VMS)
        and wanted == pods.keys()
        and all(pod["status"]["phase"] == "Running" for pod in pods.values())
        and all(vm["spec"]["running"] is False for vm in stopped)
        and all("migration" not in vm["status"] for vm in of_kind(found, "VirtualMachine"))
        and all(
            migration["status"]["phase"] in ("Succeeded", "Failed")
            for migration in of_kind(found, "VirtualMachineMigration")
        )
    )


def wait_until(kubectl: Kubectl, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the snapshot satisfies `until`; return it."""
    ends = time.monotonic() + TIMEOUT
    while not until(found := snapshot(kubectl)):
        assert time.monotonic() < ends, json.dumps([[key, item["status"]] for key, item in found.items()])
        time.sleep(0.2)
    return found


def set_running(kubectl: Kubectl, names: tuple[str, ...], *, running: bool) -> None:
    """Create, stop or start VMs, all at once."""
    spec = {"resources": {"cpu": "0.03", "memory": "0.03"}, "running": running}
    items = [vm_manifest(name, spec) for name in names]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def migrate(kubectl: Kubectl, names: tuple[str, ...], label: str) -> None:
    """Create migrations, all at once."""
    items = [
        {
            "apiVersion": "simulation.node-classifier.io/v1alpha1",
            "kind": "VirtualMachineMigration",
            "metadata": {"name": f"{label}-{name}", "namespace": "default"},
            "spec": {"vmName": name, "unschedulableTimeoutSeconds": 10},
        }
        for name in names
    ]
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("clean")
def test_three_active_controllers_leave_each_vm_the_pod_in_its_status(
    kubectl: Kubectl, controllers: list[Controller]
) -> None:
    """VMs are created, stopped, started and moved, and lose their pods, without a leader."""
    with TimedPods().following(kubectl) as watch:
        set_running(kubectl, VMS, running=True)
        wait_until(kubectl, settled)
        for round_ in range(2):
            migrate(kubectl, VMS[:6], f"move-{round_}")
            set_running(kubectl, VMS[6:16], running=False)
            victims = [vm["status"].get("podName") for vm in kubectl.json("get", "vm", *VMS[16:])["items"]]
            for _ in range(2):
                kubectl("delete", "pod", "--wait=false", "--ignore-not-found", *filter(None, victims))
            set_running(kubectl, VMS[6:16], running=True)
            wait_until(kubectl, settled)
        set_running(kubectl, VMS[:3], running=False)
        before = wait_until(kubectl, settled)
        time.sleep(3)  # nothing may be written in this time
        after = snapshot(kubectl)
    _log.info("%d second pods, the longest for %.2f s", len(watch.spans), max(watch.spans, default=0.0))
    assert watch.since == {}
    assert max(watch.spans, default=0.0) < BOUND
    assert [key for key, item in after.items() if item != before.get(key)] == [], "written after it had settled"
    for controller in controllers:
        assert controller.process.poll() is None
        assert "Traceback" not in controller.log.read_text()
