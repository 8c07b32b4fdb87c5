"""Free disk space, and whether a component fails because its disk is full: by its log, or by the file system."""

import os
from pathlib import Path

from controller.controlplane.errors import FullDiskError, says_full

_READ = 256 * 1024
"""Bytes of a log's end that are searched: a Go program writes a long stack trace after the reason."""
_LEAST = 1024 * 1024
"""Bytes; with less free space, a program that writes a database or a log soon fails."""


def free_space(path: Path) -> int:
    """Return the free bytes on the disk of a path; for one that does not exist, of its nearest existing parent."""
    state = os.statvfs(next(place for place in (path, *path.absolute().parents) if place.exists()))
    return state.f_bavail * state.f_frsize


def full_disk(component: str, log: Path, directory: Path) -> FullDiskError | None:
    """Return the error of a component that fails because the disk of its directory is full; None if it is not."""
    try:
        state = os.statvfs(directory)
    except OSError:
        return None
    free = state.f_bavail * state.f_frsize
    no_files = state.f_files > 0 and state.f_favail == 0
    if free >= _LEAST and not no_files and not says_full(_end(log)):
        return None
    return FullDiskError(component, directory, free, state.f_blocks * state.f_frsize)


def _end(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
