"""`make run` as a new user runs it, and its cleanup."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.controlplane.leftovers import started_at
from controller.controlplane.plane import ControlPlane
from tests.integration.tools import eventually, left_running
from tests.integration.vmsim import BIN

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(120)


def start(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the demonstration with its state in a directory of its own."""
    return subprocess.Popen(
        [BIN / "vmsim", "run", "--state", str(directory), *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_once_shows_the_vms_running_and_leaves_nothing(tmp_path: Path) -> None:
    """Exit code 0, the table, and the line for a second terminal; no process is left."""
    with start(tmp_path / "state", "--once") as process:
        output, complaints = process.communicate(timeout=100)
    assert process.returncode == 0, complaints
    assert f"export KUBECONFIG={tmp_path}/state/kubeconfig" in output
    rows = [line.split() for line in output.splitlines() if line.startswith("vm-")]
    assert [(row[0], row[1]) for row in rows] == [
        ("vm-large-1", "Running"),
        ("vm-medium-1", "Running"),
        ("vm-small-1", "Running"),
    ]
    assert left_running(tmp_path) == []


def test_once_names_the_vms_that_do_not_run_at_the_timeout(tmp_path: Path) -> None:
    """With one small node: exit code 1, and the scheduler's reason."""
    with start(tmp_path / "state", "--once", "--nodes", "1", "--deadline", "6", environment=HUGE) as process:
        _, complaints = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "error: after 6 s not every VM runs:" in complaints
    assert "default/vm-large-1 is Scheduling: Unschedulable: 0/1 nodes are available" in complaints
    assert "Traceback" not in complaints
    assert left_running(tmp_path) == []


HUGE = {"VMSIM_REFERENCE_CPU": "320"}
"""VMs of ten times the size: 0.15 and 0.30 of 320 CPUs fit on no node of 32."""


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    """At any point of the start; no process is left."""
    with start(tmp_path / "state") as process:
        ends = time.monotonic() + 60
        while not (tmp_path / "state" / "controller.log").exists() and time.monotonic() < ends:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert "Traceback" not in complaints
    assert left_running(tmp_path) == []


def controller(directory: Path) -> int | None:
    """Return the process ID of the controller that a run has started; None before."""
    for note in directory.glob("runs/*.json"):
        _, (pid, _) = json.loads(note.read_text())
        return int(pid)
    return None


@pytest.mark.timeout(240)
def test_a_closed_terminal_stops_everything(tmp_path: Path) -> None:
    """By SIGHUP; later output is lost."""
    ours, its = pty.openpty()
    command = [str(BIN / "vmsim"), "run", "--state", str(tmp_path / "state")]
    with subprocess.Popen(["setsid", "--ctty", *command], stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        ends = time.monotonic() + 120
        while (pid := controller(tmp_path / "state")) is None and time.monotonic() < ends:
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 65536)
        os.close(ours)
        assert process.wait(60) in (0, 130)
    assert left_running(tmp_path) == []
    assert pid is not None
    assert started_at(pid) is None


@pytest.mark.timeout(240)
def test_down_ends_the_processes_of_a_killed_run(tmp_path: Path) -> None:
    """Its control plane, and its controller, which would act beside the next one."""
    with start(tmp_path / "state") as process:
        eventually(lambda: controller(tmp_path / "state") is not None, timeout=120)
        process.kill()
        process.communicate(timeout=10)
    pid = controller(tmp_path / "state")
    assert pid is not None
    assert started_at(pid) is not None

    down = [str(BIN / "vmsim"), "down", "--state", str(tmp_path / "state")]
    ended = subprocess.run(down, check=True, capture_output=True, text=True, timeout=60)
    assert f"ended process {pid}, the controller of a `vmsim run` that was killed" in ended.stderr
    assert started_at(pid) is None
    assert left_running(tmp_path) == []


def test_a_run_does_not_stop_a_plane_that_it_did_not_start(tmp_path: Path) -> None:
    """It was started before."""
    with ControlPlane(tmp_path / "state", nodes=3) as plane:
        with start(tmp_path / "state", "--once") as process:
            _, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
        assert "was there before and stays" in complaints
        assert all(status.pid is not None for status in plane.status())


def test_cluster_current_uses_the_cluster_of_kubectl(plane: ControlPlane, tmp_path: Path) -> None:
    """No control plane of its own is started."""
    environment = {"KUBECONFIG": str(plane.kubeconfig)}
    with start(tmp_path / "state", "--once", "--cluster", "current", environment=environment) as process:
        output, complaints = process.communicate(timeout=100)
    assert process.returncode == 0, complaints
    assert "vm-small-1" in output
    assert not (tmp_path / "state" / "kubeconfig").exists()
    subprocess.run(
        [plane.kubectl, "delete", "-f", REPOSITORY / "manifests" / "examples"],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=60,
    )
