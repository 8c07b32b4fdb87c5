"""The description's own Python, unchanged, with `controller/sdk` on PYTHONPATH.

The controller of these tests is started as in the description, too: `python prometheus_exporter.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import Controller, Kubectl, Output

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("simulator", "clean")]  # the first starts all of it

SDK = REPOSITORY / "controller" / "sdk"
SNIPPETS = Path(__file__).parent / "description" / "snippets.md"
LAUNCHER = re.compile(r"virt-launcher-vm-[12]-[a-z0-9]{5}")


def snippet(heading: str) -> str:
    """Return the code under a heading."""
    section = SNIPPETS.read_text().split(f"## {heading}\n", 1)[1]
    code = re.search(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert code is not None
    return code[1]


@pytest.fixture(scope="module")
def environment(plane: ControlPlane) -> dict[str, str]:
    """Return the environment of a shell: the cluster, our Python and kubectl first on PATH, the modules' folder."""
    search = os.pathsep.join((str(Path(sys.executable).parent), str(plane.kubectl.parent), os.environ["PATH"]))
    wanted = {"KUBECONFIG": str(plane.kubeconfig), "PATH": search, "PYTHONPATH": str(SDK), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **wanted}


@pytest.fixture(scope="module")
def simulator(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Start the simulator as the description's next steps do."""
    log = tmp_path_factory.mktemp("exporter") / "log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            ["python", "prometheus_exporter.py"],
            cwd=SDK,
            env={**environment, "VMSIM_METRICS_BIND_ADDRESS": "127.0.0.1:0"},
            stdout=sink,
            stderr=sink,
        ) as process,
    ):
        running = Controller(process, log)
        try:
            running.wait_for("caches filled")
            yield running
            assert running.stop() == 0, log.read_text()
        finally:
            process.kill()


def run(environment: dict[str, str], directory: Path, code: str) -> str:
    """Run code as a file of its own; return its output."""
    file = directory / "snippet.py"
    file.write_text(code)
    return _succeed(environment, sys.executable, str(file))


def _succeed(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_simulator_serves_its_metrics(simulator: Controller) -> None:
    """At the address that Prometheus scrapes."""
    code, text = simulator.get("/metrics")
    assert code == 200
    assert "workqueue_depth" in text


def test_automatic_vm_creation(kubectl: Kubectl, environment: dict[str, str], tmp_path: Path) -> None:
    """A VM, a pod and a status for each; the scheduler assigned the pods."""
    assert run(environment, tmp_path, snippet("Automatic VM Creation")) == ""
    found = {vm["metadata"]["name"]: vm for vm in kubectl.json("get", "vm")["items"]}
    assert {name: vm["spec"]["resources"] for name, vm in found.items()} == {
        "vm-1": {"cpu": "0.1", "memory": "0.15"},
        "vm-2": {"cpu": "0.2", "memory": "0.25"},
    }
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in kubectl.json("get", "pod")["items"]}
    assert len(nodes) == 2
    assert {vm["status"]["podName"]: vm["status"]["nodeName"] for vm in found.values()} == nodes
    assert all(LAUNCHER.fullmatch(name) for name in nodes)


def test_status_tracking(kubectl: Kubectl, environment: dict[str, str], tmp_path: Path) -> None:
    """The VM runs, and the value that the caller has names its node."""
    before = 'from node import VM\nvm = VM(id="vm-1", cpu_consumption=0.10, memory_consumption=0.15)\n'
    after = "print(vm.node_name, vm.pod_name)\n"
    printed = run(environment, tmp_path, before + snippet("Status Tracking") + after)
    status = kubectl.json("get", "vm", "vm-1")["status"]
    assert status["phase"] == "Running"
    assert printed == f"{status['nodeName']} {status['podName']}\n"


def test_python_api(kubectl: Kubectl, environment: dict[str, str], tmp_path: Path) -> None:
    """It prints the same as kubectl."""
    for name in ("vm-1", "vm-2"):
        kubectl.apply_vm(name)
        kubectl.wait_phase(name, "Running")
    status = kubectl.json("get", "vm", "vm-1")["status"]
    assert run(environment, tmp_path, snippet("Python API")).splitlines() == [
        "Phase: Running",
        f"Node: {status['nodeName']}",
        f"Pod: {status['podName']}",
        "vm-1: Running",
        "vm-2: Running",
    ]


def test_vm_shows_wrong_status(kubectl: Kubectl, environment: dict[str, str]) -> None:
    """The one-liner returns once status and pod agree again."""
    kubectl.apply_vm("my-vm")
    before = kubectl.wait_phase("my-vm", "Running")["status"]
    wrong = json.dumps({"status": {"phase": "Scheduling", "nodeName": None, "podName": "virt-launcher-my-vm-x7k9m"}})
    kubectl("patch", "vm", "my-vm", "--subresource=status", "--type=merge", "-p", wrong)
    assert _succeed(environment, "bash", "-euc", snippet("VM shows wrong status")) == ""
    after = kubectl.json("get", "vm", "my-vm")["status"]
    assert [after[field] for field in ("phase", "nodeName", "podName")] == [
        before[field] for field in ("phase", "nodeName", "podName")
    ]


def test_delete_all_vms_via_python(kubectl: Kubectl, environment: dict[str, str]) -> None:
    """Without the description's line that runs kubectl."""
    for name in ("vm-1", "vm-2"):
        kubectl.apply_vm(name)
    _, _, python = snippet("Delete all VMs").partition("# Or via Python\n")
    assert _succeed(environment, "bash", "-euc", python) == ""
    assert kubectl("get", "vm", "-o", "name") == ""


def test_custom_controllers(kubectl: Kubectl, environment: dict[str, str], tmp_path: Path) -> None:
    """The official client sees each create, change and deletion of a VM, and each phase."""
    file = tmp_path / "watch.py"
    file.write_text(snippet("Custom Controllers"))
    kubectl.apply_vm("first", running=False)
    kubectl.wait_phase("first", "Stopped")
    with subprocess.Popen(
        [sys.executable, str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        output = Output(process.stdout)
        try:
            output.wait_for(lambda lines: lines == ["ADDED: first -> Stopped"])  # it watches
            kubectl.apply_vm("seen")
            output.wait_for(lambda lines: "MODIFIED: seen -> Running" in lines)
            kubectl("delete", "vm", "seen")
            lines = output.wait_for(lambda lines: "DELETED: seen -> Running" in lines)
            assert lines[1] == "ADDED: seen -> Pending"
        finally:
            process.kill()
            output.join()


def test_a_vm_is_the_same_class_under_both_names(environment: dict[str, str], tmp_path: Path) -> None:
    """So each module accepts the VMs of the other."""
    code = "import controller.sdk.node, node, pod_manager, vm_manager\nprint(node.VM is controller.sdk.node.VM)\n"
    assert run(environment, tmp_path, code) == "True\n"
