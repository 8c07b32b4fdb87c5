"""Finds and ends the processes of one control plane, by their command lines and not by recorded ids.

Every component is started as `<workdir>/bin/<component>`, so its command line names its plane. A pid file alone is
not enough: after a crash or a reboot its pid may belong to another process.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.errors import CommandError, StopError
from controller.controlplane.layout import Layout

_PROC = Path("/proc")
_HAS_PROC = _PROC.joinpath("self").exists()
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A live process. Where the system has no argument list, `argv` is the whole command line."""

    pid: int
    argv: tuple[str, ...]


def component_of(process: Process, workdir: Path) -> str | None:
    """Return the name of the plane's component that a process runs; None if it runs none."""
    prefix = f"{workdir}/bin/"
    program = process.argv[0] if process.argv else ""
    # `ps` prints one string; a component's name has no space, so the first word of the rest is the name.
    return program.removeprefix(prefix).split(" ", 1)[0] if program.startswith(prefix) else None


def belongs_to(process: Process, layout: Layout) -> bool:
    """Return whether a process is a component of the plane, or the kwokctl that is starting it."""
    if component_of(process, layout.workdir):
        return True
    line = " ".join(process.argv)
    return "kwokctl" in line.split(" --", 1)[0] and f"--kubeconfig={layout.kubeconfig}" in line


def components(processes: Iterable[Process], workdir: Path) -> dict[str, int]:
    """Map the plane's running components to their process ids."""
    found = ((component_of(process, workdir), process.pid) for process in processes)
    return {name: pid for name, pid in found if name}


def running() -> list[Process]:
    """Return the live processes of the machine, without zombies."""
    return _from_proc() if _HAS_PROC else _from_ps()


def _from_proc() -> list[Process]:
    found = []
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        try:
            command_line = _PROC.joinpath(entry.name, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile, or is hidden from this user and so not ours
        if command_line:  # a zombie's is empty
            argv = command_line.rstrip(b"\0").decode(errors="replace").split("\0")
            found.append(Process(int(entry.name), tuple(argv)))
    return found


def _from_ps() -> list[Process]:
    command = ["ps", "-axww", "-o", "pid=,stat=,command="]
    try:
        result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except (subprocess.SubprocessError, OSError) as error:
        raise CommandError("ps", str(error)) from error
    return parse_ps(result.stdout)


def parse_ps(output: str) -> list[Process]:
    """Return the processes in the output of `ps -o pid=,stat=,command=`, without zombies."""
    rows = (line.split(maxsplit=2) for line in output.splitlines())
    return [Process(int(row[0]), (row[2],)) for row in rows if len(row) == 3 and not row[1].startswith("Z")]  # noqa: PLR2004 - the three columns


def kill_all(layout: Layout, *, timeout: float) -> int:
    """End every process of the plane, including those that it starts meanwhile; return their number."""
    return len(_kill(lambda: [process.pid for process in running() if belongs_to(process, layout)], timeout))


def kill_component(workdir: Path, name: str, *, timeout: float) -> None:
    """End one component and wait until it has ended."""
    _kill(lambda: [pid for component, pid in components(running(), workdir).items() if component == name], timeout)


def _kill(find: Callable[[], list[int]], timeout: float) -> set[int]:
    """End the processes that `find` returns, until it returns none and all of them have released their ports.

    Raises StopError after `timeout` seconds.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + timeout
    # A dying process loses its command line, by which it is found, before its sockets: both must be gone.
    while alive := set(find()) | {pid for pid in ended if not has_ended(pid)}:
        if time.monotonic() > deadline:
            raise StopError(tuple(sorted(alive)))
        for pid in alive - ended:
            kill(pid)
        ended |= alive
        time.sleep(_POLL)
    return ended


def has_ended(pid: int) -> bool:
    """Return whether a process has ended or is a zombie, and so holds no ports and no files."""
    if not _HAS_PROC:
        return True  # ps, which found it, would still show it
    try:
        # The name before the state is in parentheses, and may contain spaces and parentheses itself.
        state = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def kill(pid: int) -> None:
    """Send SIGKILL; a process that has already ended is no error.

    Not SIGTERM: the data is removed or must survive a crash anyway, and kube-apiserver takes up to a minute to end
    gracefully while watches are open.
    """
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
