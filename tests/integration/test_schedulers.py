"""VMs of two schedulers on one control plane: the recipe of docs/schedulers.md beside the default scheduler."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.controlplane.nodes import NodeCapacity, node_manifest
from controller.controlplane.plane import ControlPlane
from controller.controlplane.ports import choose_port
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import Kubectl, eventually, vm_manifest

pytestmark = pytest.mark.usefixtures("controller", "clean")

NODES = ["two-schedulers-1", "two-schedulers-2", "two-schedulers-3"]
LABEL = {"vmsim-test": "two-schedulers"}


@pytest.fixture
def nodes(kubectl: Kubectl) -> Iterator[None]:
    """Add three empty nodes, on which no other test's VMs are."""
    for name in NODES:
        node = node_manifest(name, NodeCapacity())
        node["metadata"]["labels"].update(LABEL)
        kubectl("create", "-f", "-", stdin=json.dumps(node))
    kubectl("wait", "node", *NODES, "--for=condition=Ready", "--timeout=30s")
    yield
    kubectl("delete", "node", *NODES)


@pytest.fixture
def recipe(plane: ControlPlane, tmp_path: Path) -> Iterator[None]:
    """Run the page's second scheduler, on a free port."""
    page = (REPOSITORY / "docs" / "schedulers.md").read_text()
    [script] = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert "10260" in script
    programs = plane.logs.parent / "bin"
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    log = tmp_path / "log"
    with (
        log.open("w") as sink,
        subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script.replace("10260", str(choose_port()))],
            cwd=tmp_path,
            env=environment,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        ) as process,
    ):
        try:
            eventually(lambda: process.poll() is not None or "Serving securely on 127.0.0.1" in log.read_text())
            assert process.poll() is None, log.read_text()
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def run_vms(kubectl: Kubectl, names: list[str], size: str, **spec: Any) -> list[str]:
    """Create VMs, wait until all of them run, and return their nodes."""
    resources = {"cpu": size, "memory": size}
    items = [vm_manifest(name, {"resources": resources, "nodeSelector": LABEL, **spec}) for name in names]
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return [kubectl.wait_phase(name, "Running")["status"]["nodeName"] for name in names]


@pytest.mark.usefixtures("nodes", "recipe")
def test_one_scheduler_packs_while_the_default_one_spreads(kubectl: Kubectl) -> None:
    """The first VM of the second scheduler may go to any node, as all are loaded alike; the others follow it."""
    spread = run_vms(kubectl, ["spread-1", "spread-2", "spread-3"], "0.4")
    packed = run_vms(kubectl, ["packed-1", "packed-2", "packed-3", "packed-4"], "0.1", schedulerName="packing")

    assert sorted(spread) == NODES
    assert len(set(packed)) == 1
