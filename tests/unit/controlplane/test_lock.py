"""A lock excludes other processes, shows them its holder's note, and is waited for until a deadline."""

import threading
import time
from pathlib import Path

import pytest

from controller.controlplane.errors import LockTimeoutError
from controller.controlplane.lock import locked
from tests.unit.controlplane.support import RecordingReporter


def test_waiting_for_a_lock_ends_at_the_deadline(tmp_path: Path, report: RecordingReporter) -> None:
    """The error contains the holder's note."""
    path = tmp_path / "lock"
    with (
        locked(path, waiting_for="building", timeout=1, report=report),
        pytest.raises(LockTimeoutError, match="starting"),
        locked(path, waiting_for="building", timeout=0.1, report=report),
    ):
        pass


def test_a_process_that_waits_reports_the_holders_note(tmp_path: Path, report: RecordingReporter) -> None:
    """The wait may take minutes."""
    path = tmp_path / "lock"
    with locked(path, waiting_for="building", timeout=1, report=report) as lock:
        lock.note("building etcd, 3 of 7 packages")
        with (
            pytest.raises(LockTimeoutError),
            locked(path, waiting_for="building", timeout=0.1, report=report),
        ):
            pass

    title, _, _, detail = report.progress[0]
    assert title == "waiting for another process, which is building"
    assert detail.endswith("building etcd, 3 of 7 packages")


def test_a_lock_is_acquired_as_soon_as_it_is_released(tmp_path: Path, report: RecordingReporter) -> None:
    """Well before the deadline."""
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
