"""An advisory lock between processes that the kernel releases when its holder ends, however it ends.

The holder can leave a note in the lock file (what it is doing); those who wait show it.
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
    """A lock that is held."""

    descriptor: int

    def note(self, text: str) -> None:
        """Tell those who wait what the holder is doing."""
        content = f"process {os.getpid()}: {text}\n".encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content, 0)


@contextmanager
def locked(path: Path, *, waiting_for: str, timeout: float, report: Reporter) -> Iterator[Lock]:
    """Hold the lock at a path; say so and wait while another process holds it.

    The file stays behind on purpose: removing it would let two processes lock two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try(descriptor):
            _wait(descriptor, path, waiting_for, timeout, report)
        lock = Lock(descriptor)
        lock.note("just started")
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
    with report.task(f"another process is {waiting_for}, waiting for it") as advance:
        while not _try(descriptor):
            if time.monotonic() - started > timeout:
                raise LockTimeoutError(path, _note(descriptor), timeout)
            advance(0, 0, _note(descriptor))
            time.sleep(_POLL)


def _note(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip()
