"""How `vmsim run` finds its metrics, which earlier controllers it ends, and what it leaves of a plane that it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.controlplane import kwokctl, processes, record
from controller.controlplane.controllers import metrics_url
from controller.controlplane.layout import Layout
from controller.controlplane.leftovers import started_at
from controller.controlplane.ports import Ports
from tests.unit.controlplane.support import lay_out

STARTING = '{"event": "starting", "metrics": "http://127.0.0.1:39133/metrics", "version": "0.1.0"}\n'


def test_the_first_log_line_has_the_url_of_the_metrics(tmp_path: Path) -> None:
    """Later lines do not matter."""
    log = tmp_path / "controller.log"
    log.write_text(STARTING + '{"event": "caches filled"}\n')

    assert metrics_url(log) == "http://127.0.0.1:39133/metrics"


@pytest.mark.parametrize("begins", ["", STARTING[:40], '{"event": "caches filled"}\n', "2026-01-15 [info] starting\n"])
def test_a_log_with_another_first_line_has_no_url(tmp_path: Path, begins: str) -> None:
    """An empty log, half a line, another line, another format."""
    log = tmp_path / "controller.log"
    log.write_text(begins)

    assert metrics_url(log) is None


def demonstrate(directory: Path, *arguments: str) -> tuple[int, str]:
    """Run the demonstration without a kubeconfig; return its exit code and standard error."""
    done = subprocess.run(
        [Path(sys.executable).with_name("vmsim"), "run", "--once", "--state", str(directory), *arguments],
        env={**os.environ, "KUBECONFIG": "", "VMSIM_KUBECONFIG": "", "HOME": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    return done.returncode, done.stderr


def test_a_controller_that_a_killed_run_left_on_another_cluster_is_ended(tmp_path: Path) -> None:
    """It would act beside the controller of this run."""
    with subprocess.Popen(["sleep", "60"]) as run, subprocess.Popen(["sleep", "60"]) as controller:
        (tmp_path / "runs").mkdir()
        note = json.dumps([[process.pid, started_at(process.pid)] for process in (run, controller)])
        (tmp_path / "runs" / "note.json").write_text(note)
        run.kill()
        run.wait(5)
        try:
            code, complaints = demonstrate(tmp_path, "--cluster", "current")
            assert controller.poll() is not None
        finally:
            controller.kill()
    assert f"ended process {controller.pid}, the controller of a `vmsim run` that was killed" in complaints
    assert (code, "error: no cluster to talk to" in complaints) == (1, True)


def test_an_existing_control_plane_that_does_not_start_keeps_its_objects(tmp_path: Path) -> None:
    """This run did not create it."""
    layout = Layout.of(tmp_path / "state")
    scripts = dict.fromkeys(kwokctl.COMPONENTS, "while :; do sleep 0.1; done")
    lay_out(layout, {**scripts, "etcd": "echo no space left on device"})
    record.write(layout.record, record.Record.of(record.Settings.of({}, None), Ports(1, 1, 1, 1, 1, 1)))
    try:
        code, complaints = demonstrate(layout.directory)
        assert processes.components(processes.running(), layout.workdir) == {}
    finally:
        processes.kill_all(layout, timeout=5)
    assert (code, "error: no space left on the disk of" in complaints) == (1, True)
    assert "is stopped again and keeps its objects" in complaints
    assert layout.record.exists()
