"""What a killed run left is ended; what is not for sure its controller is not."""

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
    """Run something that does not end by itself."""
    with subprocess.Popen(["sleep", "60"], text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def dead() -> tuple[int, str]:
    """Return a process that has ended, and when it was started."""
    with subprocess.Popen(["sleep", "60"]) as process:
        start = started_at(process.pid)
        process.kill()
    assert start is not None
    return process.pid, start


def note(directory: Path, run: tuple[int, str | None], controller: tuple[int, str | None]) -> Path:
    """Leave a note as a run does."""
    path = directory / "runs" / "note.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([run, controller]))
    return path


def test_a_controller_whose_run_has_ended_is_ended(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str]
) -> None:
    """And nothing is left of the note."""
    note(tmp_path, dead, (controller.pid, started_at(controller.pid)))
    assert leftovers.end(tmp_path, patience=5) == [controller.pid]
    assert controller.wait(5) != 0
    assert list(tmp_path.iterdir()) == []


def test_one_that_does_not_heed_a_polite_word_is_killed(tmp_path: Path, dead: tuple[int, str]) -> None:
    """After some patience."""
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        note(tmp_path, dead, (process.pid, started_at(process.pid)))
        leftovers.end(tmp_path, patience=0.2)
        assert process.wait(5) == -9


def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str]
) -> None:
    """It was started at another time, or in another boot."""
    for start in ("another-boot 1", f"{started_at(controller.pid)}0", None):
        note(tmp_path, dead, (controller.pid, start))
        assert leftovers.end(tmp_path, patience=5) == []
    assert controller.poll() is None


def test_the_controller_of_a_run_that_goes_on_is_left_alone(tmp_path: Path, controller: subprocess.Popen[str]) -> None:
    """In another terminal, perhaps."""
    path = note(tmp_path, (os.getpid(), started_at(os.getpid())), (controller.pid, started_at(controller.pid)))
    assert leftovers.end(tmp_path, patience=5) == []
    assert controller.poll() is None
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "[[1, 2, 3], 4]", "null"])
def test_a_note_that_cannot_be_read_is_taken_away(tmp_path: Path, content: str) -> None:
    """A full disk may have cut it."""
    path = note(tmp_path, (0, ""), (0, ""))
    path.write_text(content)
    assert leftovers.end(tmp_path, patience=5) == []
    assert list(tmp_path.iterdir()) == []


def test_a_note_lasts_as_long_as_the_run(tmp_path: Path, controller: subprocess.Popen[str]) -> None:
    """Then there is nothing to end."""
    with leftovers.noted(tmp_path, controller.pid):
        [path] = (tmp_path / "runs").iterdir()
        assert json.loads(path.read_text()) == [
            [os.getpid(), started_at(os.getpid())],
            [controller.pid, started_at(controller.pid)],
        ]
    assert list(tmp_path.iterdir()) == []


def test_down_ends_what_a_killed_run_left(
    tmp_path: Path, controller: subprocess.Popen[str], dead: tuple[int, str], report: RecordingReporter
) -> None:
    """Although no plane is there any more."""
    note(tmp_path, dead, (controller.pid, started_at(controller.pid)))
    ControlPlane(tmp_path, report=report).down()
    assert controller.wait(5) != 0
    assert report.said == [f"ended process {controller.pid}, the controller of a run that was killed"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_an_ended_process_was_started_at_no_time(dead: tuple[int, str]) -> None:
    """Its number may be given away again."""
    assert started_at(dead[0]) is None
