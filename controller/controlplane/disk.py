"""How much space a disk has, and whether a component cannot go on because it is full: by its log, or as seen there."""

import os
from pathlib import Path

from controller.controlplane.errors import FullDiskError, says_full

_READ = 256 * 1024
"""Bytes of a log's end that are searched: a Go program writes a long stack after the reason."""
_LEAST = 1024 * 1024
"""Bytes; with fewer, nothing that writes a database or a log gets far."""


def free_space(path: Path) -> int:
    """Return the bytes that may be written to the disk that holds a path, or would hold it if it existed."""
    state = os.statvfs(next(place for place in (path, *path.absolute().parents) if place.exists()))
    return state.f_bavail * state.f_frsize


def full_disk(component: str, log: Path, directory: Path) -> FullDiskError | None:
    """Return what to tell of a component that does not come up; None if the disk of its directory is not to blame."""
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
