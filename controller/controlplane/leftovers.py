"""Ends what a killed `vmsim run` leaves behind: the controller that it had started.

A run writes a note of its controller beside the plane's files, and removes the note when it ends. Guarantees: a
process is ended only if it is the noted one, started at the same moment of the same boot (its pid alone may have been
reused), and only if the run that noted it has ended.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NOTES = "runs"
_POLL = 0.05
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START_TIME = 19
"""The field of /proc/PID/stat, counted from the one after the name: clock ticks since the boot."""


def started_at(pid: int) -> str | None:
    """Return the start time of a live process, comparable with another such value; None if it has ended."""
    if _BOOT.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{_BOOT.read_text().strip()} {fields[_START_TIME]}"
    try:
        result = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True, timeout=10
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return result.stdout.strip() or None


@contextmanager
def noted(directory: Path, pid: int) -> Iterator[None]:
    """Keep a note that this process started another one, while the context lasts."""
    note = directory / _NOTES / f"{os.getpid()}-{pid}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(".tmp")
    temporary.write_text(json.dumps([[owner, started_at(owner)] for owner in (os.getpid(), pid)]))
    temporary.replace(note)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        _remove_if_empty(note.parent)


def end(directory: Path, *, grace: float) -> list[int]:
    """End the processes that were left, with SIGTERM, and SIGKILL after `grace` seconds; return their pids."""
    ended = []
    for note in sorted((directory / _NOTES).glob("*.json")):
        try:
            (run, run_start), (pid, start) = json.loads(note.read_text())
        except (OSError, ValueError, TypeError):
            note.unlink(missing_ok=True)
            continue
        if run_start is not None and started_at(run) == run_start:
            continue
        if start is not None and started_at(pid) == start:
            _end(pid, start, grace)
            ended.append(pid)
        note.unlink(missing_ok=True)
    _remove_if_empty(directory / _NOTES)
    return ended


def _end(pid: int, start: str, grace: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace
        if started_at(pid) != start:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        while started_at(pid) == start and time.monotonic() < deadline:
            time.sleep(_POLL)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()
