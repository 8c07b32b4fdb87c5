"""The requests of a fleet at rest, by the API server's audit log and not by the controller's metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.tools import Controller, Kubectl
from tests.plane import install

REPOSITORY = Path(__file__).resolve().parents[2]
AUDIT_EVERYTHING = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
"""


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[ControlPlane]:
    """Run a control plane of its own whose audit log has every request."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(AUDIT_EVERYTHING)
    with ControlPlane(tmp_path / "state", nodes=2, audit_policy=policy) as plane:
        install(plane)
        yield plane


@pytest.mark.timeout(120)
def test_an_idle_fleet_makes_no_request_at_all(audited: ControlPlane, tmp_path: Path) -> None:
    """VMs that run, are unschedulable, stopped or failed: only the open watches stay."""
    kubectl = Kubectl(audited.kubectl, audited.kubeconfig)
    with Controller.start(audited.kubeconfig, tmp_path / "log"):
        for name, changes in {"runs": {}, "waits": {"cpu": "1.5"}, "stopped": {"running": False}}.items():
            kubectl.apply_vm(name, **changes)  # type: ignore[arg-type]
        kubectl.wait_phase("runs", "Running")
        kubectl.wait_phase("stopped", "Stopped")
        kubectl("wait", "vm/waits", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable", "--timeout=15s")
        time.sleep(3)  # events are written behind the work
        start = datetime.now(UTC)
        time.sleep(10)  # the time for which nothing must happen is what this test is about
        end = datetime.now(UTC)
        entries = list(_requests(audited.audit_log))
    ours = [entry for entry in entries if entry.get("userAgent", "").startswith("vmsim/")]
    assert {entry["verb"] for entry in ours} >= {"list", "watch", "create", "patch"}, "the log sees the controller"
    idle = [entry for entry in ours if start < _received(entry) < end]
    assert [f"{entry['verb']} {entry['requestURI']}" for entry in idle] == []
    others = [entry for entry in entries if start < _received(entry) < end and _writes_ours(entry)]
    assert [f"{entry['user']['username']} {entry['verb']} {entry['requestURI']}" for entry in others] == []


@pytest.mark.timeout(120)
def test_a_vm_costs_one_create_and_few_status_writes_until_it_runs(audited: ControlPlane, tmp_path: Path) -> None:
    """One create of a pod, at most one write each for Scheduling, Scheduled and Running, and no live read.

    The settings cost one read and one create, once for all VMs.
    """
    kubectl = Kubectl(audited.kubectl, audited.kubeconfig)
    with Controller.start(audited.kubeconfig, tmp_path / "log", "--no-events"):
        kubectl.apply_vm("runs")
        kubectl.wait_phase("runs", "Running")
        kubectl("wait", "vm/runs", "--for=condition=Ready", "--timeout=15s")
    ours = [entry for entry in _requests(audited.audit_log) if entry.get("userAgent", "").startswith("vmsim/")]
    single = [entry for entry in ours if entry["verb"] not in ("list", "watch")]
    settings = [entry["verb"] for entry in single if entry["objectRef"]["resource"] == "configmaps"]
    assert settings == ["get", "create"]
    counts = [entry["verb"] for entry in single if entry["objectRef"]["resource"] != "configmaps"]
    assert counts.count("create") == 1
    assert 1 <= counts.count("patch") <= 3
    assert set(counts) == {"create", "patch"}


def _requests(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        # A watch has one entry when it starts and one when it ends.
        if entry["verb"] != "watch" or entry["stage"] == "ResponseStarted":
            yield entry


def _writes_ours(entry: dict[str, Any]) -> bool:
    """Whether any client writes to a VM or a pod."""
    resource = entry.get("objectRef", {}).get("resource")
    return resource in ("pods", "virtualmachines") and entry["verb"] in ("create", "update", "patch", "delete")


def _received(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["requestReceivedTimestamp"])
