"""Runs a long command whose stderr is its progress.

Guarantees: when the caller is interrupted, the command ends with all its children.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from controller.controlplane.program_errors import GoCommandError

# Called with each line of a command's standard error, and with None when a second passes without any.
OnProgress = Callable[[str | None], None]

_TICK = 1.0
_GRACE = 5.0
_TAIL_LINES = 20


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    scratch: Path,
    on_progress: OnProgress,
    timeout: float,
) -> str:
    """Run a command and return its standard output, buffered in `scratch`. Raises GoCommandError."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with tempfile.TemporaryFile(dir=scratch) as output, _process(command, cwd, env, output.fileno()) as process:
        try:
            for line in _lines(process, timeout):
                on_progress(line)
                if line is not None:
                    tail.append(line)
            code = process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            raise GoCommandError(_short(command), f"not finished after {timeout:.0f} s") from None
        if code != 0:
            raise GoCommandError(_short(command), "\n".join(tail) or f"exit status {code}")
        output.seek(0)
        return output.read().decode(errors="replace")


@contextlib.contextmanager
def _process(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: the whole group can be ended, and a terminal's Ctrl-C reaches only this program,
    # which then ends the group gracefully.
    with contextlib.ExitStack() as stack:
        with _interrupts_deferred():
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(_end_if_running, process)
        yield process


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C: between the start of a process and its registration here, it would leave the process behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)


def _end_if_running(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # go removes its temporary files on SIGINT; its children may ignore that signal.
    os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _lines(process: subprocess.Popen[bytes], timeout: float) -> Iterator[str | None]:
    """Yield the lines of a process's standard error, and None after each second without one."""
    assert process.stderr is not None  # noqa: S101 - it was opened with a pipe
    descriptor = process.stderr.fileno()
    deadline = time.monotonic() + timeout
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, timeout)
            if not selector.select(_TICK):
                yield None
                continue
            if not (chunk := os.read(descriptor, 1 << 16)):
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _short(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, command[1], "…", command[-1]])
