"""The controller of a killed run is ended; a process that may be another one is not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane import leftovers
from controller.controlplane.leftovers import started_at
from controller.controlplane.plane import ControlPlane
from tests.unit.controlplane.support import RecordingReporter

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def controller() -> Iterator[subprocess.Popen[str]]:
    """Run a process that does not end by itself."""
    with subprocess.Popen(["sleep", "60"], text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def dead() -> tuple[int, str]:
    """Return the pid and start time of a process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        start = started_at(process.pid)
        process.kill()
    assert start is not None
    return process.pid, start


def note(directory: Path, run: tuple[int, str | None], controller: tuple[int, str | None]) -> Path:
    """Write a note as a run does."""
    path = directory / "runs" / "note.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([run, controller]))
    return path


def test_a_controller_whose_run_has_ended_is_ended(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str]
) -> None:
    """The note is removed with it."""
    note(tmp_path, dead, (controller.pid, started_at(controller.pid)))
    assert leftovers.end(tmp_path, grace=5) == [controller.pid]
    assert controller.wait(5) != 0
    assert list(tmp_path.iterdir()) == []


def test_a_controller_that_ignores_sigterm_is_killed(tmp_path: Path, dead: tuple[int, str]) -> None:
    """After `grace` seconds."""
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        note(tmp_path, dead, (process.pid, started_at(process.pid)))
        leftovers.end(tmp_path, grace=0.2)
        assert process.wait(5) == -9


def test_a_process_that_reuses_the_pid_is_not_ended(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str]
) -> None:
    """It was started at another time, or in another boot."""
    for start in ("another-boot 1", f"{started_at(controller.pid)}0", None):
        note(tmp_path, dead, (controller.pid, start))
        assert leftovers.end(tmp_path, grace=5) == []
    assert controller.poll() is None


def test_the_controller_of_a_live_run_is_not_ended(tmp_path: Path, controller: subprocess.Popen[str]) -> None:
    """That run may be in another terminal."""
    path = note(tmp_path, (os.getpid(), started_at(os.getpid())), (controller.pid, started_at(controller.pid)))
    assert leftovers.end(tmp_path, grace=5) == []
    assert controller.poll() is None
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "[[1, 2, 3], 4]", "null"])
def test_a_malformed_note_is_removed(tmp_path: Path, content: str) -> None:
    """A full disk may have truncated it."""
    path = note(tmp_path, (0, ""), (0, ""))
    path.write_text(content)
    assert leftovers.end(tmp_path, grace=5) == []
    assert list(tmp_path.iterdir()) == []


def test_a_note_exists_as_long_as_the_run(tmp_path: Path, controller: subprocess.Popen[str]) -> None:
    """Without a note, no process is ended."""
    with leftovers.noted(tmp_path, controller.pid):
        [path] = (tmp_path / "runs").iterdir()
        assert json.loads(path.read_text()) == [
            [os.getpid(), started_at(os.getpid())],
            [controller.pid, started_at(controller.pid)],
        ]
    assert list(tmp_path.iterdir()) == []


def test_down_ends_the_controller_of_a_killed_run(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str], report: RecordingReporter
) -> None:
    """Although there is no plane any more."""
    note(tmp_path, dead, (controller.pid, started_at(controller.pid)))
    ControlPlane(tmp_path, report=report).down()
    assert controller.wait(5) != 0
    assert report.said == [f"ended process {controller.pid}, the controller of a `vmsim run` that was killed"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_an_ended_process_has_no_start_time(dead: tuple[int, str]) -> None:
    """Its pid may be reused."""
    assert started_at(dead[0]) is None
