"""A gap in the nodes' heartbeats, and the recovery of the VMs on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration import accounts
from tests.integration.tools import Controller, Kubectl
from tests.plane import install

SHORT = {
    "kube-controller-manager": {"node-monitor-grace-period": "6s", "node-monitor-period": "1s"},
    "kwok-controller": {"node-lease-duration-seconds": "4"},
}
"""Minutes, as kwokctl sets them, would show nothing more."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """Run a plane with a short grace period of nodes."""
    audited = accounts.audit_policy(tmp_path)
    with ControlPlane(tmp_path / "state", nodes=2, component_args=SHORT, audit_policy=audited) as plane:
        install(plane)
        yield plane


@pytest.mark.timeout(240)
def test_vms_are_ready_again_after_a_gap_in_their_nodes_heartbeats(plane: ControlPlane, tmp_path: Path) -> None:
    """KWOK is paused and resumed. Meanwhile the nodes are not ready, and neither are their pods."""
    kubectl = Kubectl(plane.kubectl, plane.kubeconfig)
    kwok = next(component.pid for component in plane.status() if component.name == "kwok-controller")
    assert kwok is not None
    with Controller.start(plane.kubeconfig, tmp_path / "log"):
        kubectl.apply_vm("a")
        kubectl("wait", "--for=condition=Ready", "vm/a", "--timeout=30s")
        pod = kubectl("get", "vm", "a", "-o", "jsonpath={.status.podUID}")
        os.kill(kwok, signal.SIGSTOP)
        try:
            kubectl("wait", "--for=condition=Ready=false", "vm/a", "--timeout=40s")
        finally:
            os.kill(kwok, signal.SIGCONT)
        kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=30s")
        kubectl("wait", "--for=condition=Ready", "vm/a", "--timeout=30s")
        assert kubectl("get", "vm", "a", "-o", "jsonpath={.status.phase} {.status.podUID}") == f"Running {pod}"
