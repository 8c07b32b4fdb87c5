"""Every drill, small, run as a user runs it: its verdict, its report, and its cleanup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from controller.controlplane.plane import ControlPlane
from hack.drills.report import Report
from tests.integration.tools import Kubectl, left_running

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True, slots=True)
class Run:
    """A drill that has ended."""

    code: int
    output: str
    complaints: str
    reports: Path

    @classmethod
    def of(cls, directory: Path, *arguments: str, own: bool = True, **environment: str) -> Self:
        """Run a drill with its state and its reports in a directory."""
        with start(directory, *arguments, own=own, **environment) as process:
            output, complaints = process.communicate(timeout=140)
        return cls(process.returncode, output, complaints, directory / "reports")

    def report(self, name: str) -> Report:
        """Return its report, after checks of its output."""
        assert self.code == 0, self.output + self.complaints
        assert "PASSED" in self.output
        assert "Traceback" not in self.complaints
        assert (self.reports / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        report = Report.read(self.reports / f"{name}.json")
        assert report.drill == name
        assert report.problems == []
        assert all(part.migrations.unfinished == 0 for part in report.rounds)
        return report


def start(directory: Path, *arguments: str, own: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Start a drill."""
    places = ["--report", str(directory / "reports"), *(["--dir", str(directory / "state")] if own else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "hack.drills", *arguments, *places],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def drill(tmp_path: Path) -> Callable[..., Report]:
    """Run a drill that passes and leaves no process."""

    def run(name: str, *arguments: str) -> Report:
        run = Run.of(tmp_path, name, *arguments)
        assert left_running(tmp_path) == []
        return run.report(name)

    return run


def test_rolling_drain(drill: Callable[..., Report]) -> None:
    """Every VM moves at least once, each time by a migration that succeeds."""
    report = drill("rolling-drain", "--nodes", "3", "--vms", "5")
    (part,) = report.rounds
    assert part.migrations.asked == part.migrations.succeeded == part.moves == len(part.downtimes) >= 5
    assert all(min(count for at, count in points if at > part.began) == 0 for points in report.loads.values())


def test_node_loss(drill: Callable[..., Report]) -> None:
    """Only the VMs of the lost node were down, and they run on other nodes."""
    report = drill("node-loss", "--nodes", "3", "--vms", "6")
    (part,) = report.rounds
    assert part.moves == len(part.downtimes) == part.spread_before.most
    assert part.longest_without_pod == max(part.downtimes)


def test_migration_storm(drill: Callable[..., Report]) -> None:
    """With limits, which hold by the pod watch, and without: all of them succeed."""
    report = drill("migration-storm", "--nodes", "3", "--vms", "9")
    assert [part.migrations.succeeded for part in report.rounds] == [9, 9]
    assert [part.moves for part in report.rounds] == [9, 9]
    limited = report.rounds[0]
    assert 1 <= limited.most_down_at_once <= 5
    assert 1 <= limited.most_down_at_once_of_a_node <= 2


def test_controller_restart_mid_migration(drill: Callable[..., Report]) -> None:
    """Restarted after a kill, it completes the migration."""
    report = drill("controller-restart-mid-migration", "--nodes", "3", "--vms", "4")
    (part,) = report.rounds
    assert part.migrations.asked == 4
    assert part.moves == part.migrations.succeeded
    assert part.moves >= 1


def test_full_cluster(drill: Callable[..., Report]) -> None:
    """Every migration fails, and no pod is touched."""
    report = drill("full-cluster", "--nodes", "2", "--vms", "4")
    (part,) = report.rounds
    assert part.migrations.failed == 4
    assert part.moves == 0
    assert part.downtimes == []


def test_a_drill_that_exceeds_its_time_fails(tmp_path: Path) -> None:
    """Exit code 1, the reason, and a report."""
    run = Run.of(tmp_path, "full-cluster", "--nodes", "2", "--vms", "4", "--deadline", "3")
    assert run.code in {1, 3}, run.output + run.complaints
    assert "deadline passed" in run.output or "the drill cannot begin" in run.complaints
    assert "Traceback" not in run.complaints
    assert left_running(tmp_path) == []


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    """Also if it is pressed twice."""
    with start(tmp_path, "rolling-drain", "--nodes", "2", "--vms", "4") as process:
        ends = time.monotonic() + 60
        while not (tmp_path / "reports" / "controller.log").exists() and time.monotonic() < ends:
            time.sleep(0.05)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        output, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, output + complaints
    assert "Traceback" not in complaints
    assert left_running(tmp_path) == []


def test_a_drill_restores_the_current_cluster(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    """Its namespace is deleted; the lost node exists again."""
    before: Any = kubectl("get", "nodes", "-o", "name")
    arguments = ("node-loss", "--vms", "3", "--cluster", "current")
    run = Run.of(tmp_path, *arguments, own=False, KUBECONFIG=str(plane.kubeconfig))
    assert run.report("node-loss").nodes == 3
    assert kubectl("get", "nodes", "-o", "name") == before
    assert "drill-" not in kubectl("get", "namespaces", "-o", "name")
    kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=15s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("node-loss", "--nodes", "1"), "needs at least 2 nodes"),
        (("full-cluster", "--nodes", "3", "--vms", "7"), "a multiple of 3"),
        (("node-los",), "invalid choice: 'node-los'"),
    ],
)
def test_impossible_sizes_are_refused_before_the_start(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Exit code 2, with the reason."""
    run = Run.of(tmp_path, *arguments)
    assert run.code == 2
    assert words in run.complaints
    assert not (tmp_path / "state").exists()


def test_help_explains_each_drill(tmp_path: Path) -> None:
    """In one line each."""
    run = Run.of(tmp_path, "--help")
    assert run.code == 0
    for name in ("rolling-drain", "node-loss", "migration-storm", "controller-restart-mid-migration", "full-cluster"):
        assert f"\n  {name} " in run.output
