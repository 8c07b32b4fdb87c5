"""The kernel's figures about a process and this machine (Linux only: /proc)."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Indexes of the fields in /proc/PID/stat, counted after the name in parentheses."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, in seconds (a kernel tick is 10 ms)."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU time of several processes, in seconds; one that has ended counts 0."""
    total = 0.0
    for pid in pids:
        try:
            total += cpu_seconds(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def describe() -> dict[str, str]:
    """Return the properties of the machine that the figures depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in (_PROC / "cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
