"""A lock excludes others, tells them what its holder does, and is given up at its deadline."""

import threading
import time
from pathlib import Path

import pytest

from controller.controlplane.errors import LockTimeoutError
from controller.controlplane.lock import locked
from tests.unit.controlplane.support import RecordingReporter


def test_lock_is_given_up_at_the_deadline(tmp_path: Path, report: RecordingReporter) -> None:
    """Nothing waits for ever."""
    path = tmp_path / "lock"
    with (
        locked(path, waiting_for="building", timeout=1, report=report),
        pytest.raises(LockTimeoutError, match="just started"),
        locked(path, waiting_for="building", timeout=0.1, report=report),
    ):
        pass


def test_those_who_wait_see_what_the_holder_does(tmp_path: Path, report: RecordingReporter) -> None:
    """Minutes of waiting are explained."""
    path = tmp_path / "lock"
    with locked(path, waiting_for="building", timeout=1, report=report) as lock:
        lock.note("building etcd, 3 of 7 packages")
        with (
            pytest.raises(LockTimeoutError),
            locked(path, waiting_for="building", timeout=0.1, report=report),
        ):
            pass

    title, _, _, detail = report.progress[0]
    assert title == "another process is building, waiting for it"
    assert detail.endswith("building etcd, 3 of 7 packages")


def test_lock_is_had_as_soon_as_it_is_free(tmp_path: Path, report: RecordingReporter) -> None:
    """Nobody waits longer than needed."""
    path = tmp_path / "lock"
    released = threading.Event()

    def hold() -> None:
        with locked(path, waiting_for="building", timeout=1, report=report):
            held.set()
            released.wait(5)

    held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    threading.Timer(0.1, released.set).start()

    started = time.monotonic()
    with locked(path, waiting_for="building", timeout=5, report=report):
        waited = time.monotonic() - started

    holder.join()
    assert 0.05 < waited < 2
