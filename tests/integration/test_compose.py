"""The commands of docker-compose.yaml, one after the other, without containers.

The cluster is a control plane without nodes and without our resources behind `kubectl proxy`, as KWOK's image has it.
In the commands the proxy's address replaces the cluster's, and the repository replaces the mounts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.tools import Controller, Kubectl, Output
from tests.unit.manifests.shipped import REPOSITORY, load

SERVICES = load(REPOSITORY / "docker-compose.yaml")["services"]
CLUSTER = "http://cluster:8080"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ControlPlane]:
    """Run a control plane as KWOK's image has it: no node, and none of our resources."""
    with ControlPlane(tmp_path / "state", nodes=0) as plane:
        yield plane


@pytest.fixture
def proxy(empty: ControlPlane) -> Iterator[str]:
    """Return the URL of the cluster without credentials."""
    command = [str(empty.kubectl), "--kubeconfig", str(empty.kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output = Output(process.stdout)
        try:
            yield f"http://{output.wait_for(bool)[0].rpartition(' ')[2]}"
        finally:
            process.terminate()
            output.join()


@pytest.mark.timeout(90)
def test_the_services_of_compose_end_with_running_vms(empty: ControlPlane, proxy: str, tmp_path: Path) -> None:
    """Set up, start the controller, wait for its health check, apply the examples."""
    run("setup", empty, proxy)
    kubeconfig = tmp_path / "kubeconfig"
    shipped = REPOSITORY / "manifests" / "kwok" / "kubeconfig.yaml"
    kubeconfig.write_text(shipped.read_text().replace(CLUSTER, proxy))
    with Controller.start(kubeconfig, tmp_path / "log") as controller:
        check = SERVICES["controller"]["healthcheck"]["test"][-1].replace("http://127.0.0.1:8080", controller.url)
        assert controller.url in check
        assert subprocess.run([sys.executable, "-c", check], check=False, timeout=10).returncode == 0
        run("examples", empty, proxy)
        kubectl = Kubectl(empty.kubectl, empty.kubeconfig)
        kubectl("wait", "--for=condition=Ready", "vm", "--all", "--timeout=30s")
        vms = kubectl.json("get", "vm")["items"]
    assert len(vms) == 3
    assert {vm["status"]["nodeName"] for vm in vms} <= {"kwok-node-1", "kwok-node-2", "kwok-node-3"}


def run(service: str, plane: ControlPlane, proxy: str) -> None:
    """Run a one-shot service's command twice, since `docker compose up` repeats it."""
    arguments = [
        argument.replace(CLUSTER, proxy).replace("=/manifests/", f"={REPOSITORY}/manifests/")
        for argument in SERVICES[service]["command"]
    ]
    environment = {**os.environ, "KUBECONFIG": "/nonexistent"}
    for _ in range(2):
        done = subprocess.run(
            [plane.kubectl, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, done.stderr
