"""An advisory lock between processes, which the kernel releases however its holder ends.

The holder can write a note about its work into the lock file; processes that wait for the lock show it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.errors import LockTimeoutError
from controller.controlplane.report import Reporter

_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Lock:
    """An acquired lock."""

    descriptor: int

    def note(self, text: str) -> None:
        """Publish the holder's work to the processes that wait."""
        content = f"process {os.getpid()}: {text}\n".encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content, 0)


@contextmanager
def locked(path: Path, *, waiting_for: str, timeout: float, report: Reporter) -> Iterator[Lock]:
    """Hold the lock at a path; while another process holds it, report that and wait. Raises LockTimeoutError.

    The file is not removed, since two processes could then lock two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try(descriptor):
            _wait(descriptor, path, waiting_for, timeout, report)
        lock = Lock(descriptor)
        lock.note("starting")
        yield lock
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(descriptor: int, path: Path, waiting_for: str, timeout: float, report: Reporter) -> None:
    started = time.monotonic()
    with report.task(f"waiting for another process, which is {waiting_for}") as advance:
        while not _try(descriptor):
            if time.monotonic() - started > timeout:
                raise LockTimeoutError(path, _note(descriptor), timeout)
            advance(0, 0, _note(descriptor))
            time.sleep(_POLL)


def _note(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip()
