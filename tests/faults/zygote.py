"""Starts controllers by forking a process that has imported everything, and kills them with SIGKILL.

Importing the controller takes more than a second, a fork some milliseconds, so hundreds of real processes can be
started and killed at any point. Guarantees: each controller is a process of its own (SIGKILL ends it and nothing else);
when the parent ends, however it does, every controller ends with it.

Run as `python -m tests.faults.zygote`: reads one JSON object a line (`arguments`, `log`), answers with a process ID.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

TASKS: Final = "asyncio tasks"
"""The key of the object that `count_tasks` writes into the log."""
_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_START_DEADLINE: Final = 60.0
_END_DEADLINE: Final = 10.0


class Process:
    """One controller."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        ended, _, _ = select.select([self._pidfd], [], [], 0)
        return not ended

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def count_tasks(self) -> None:
        """Have it log the number of its asyncio tasks."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGUSR1)

    async def close(self) -> None:
        """Kill it, and wait until it has ended."""
        self.kill()
        async with asyncio.timeout(_END_DEADLINE):
            while self.alive:  # noqa: ASYNC110 - a moment; uvloop and asyncio differ in what they can wait for
                await asyncio.sleep(0.005)
        os.close(self._pidfd)


class Zygote:
    """The process that is forked. Use `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Run it while the context lasts; every controller that it started ends with it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", __name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            cwd=_REPOSITORY,
            start_new_session=True,
        )
        try:
            yield cls(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def spawn(self, *arguments: str, log: Path) -> Process:
        """Start a controller with these arguments; its output is appended to the log."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("it was started with pipes")
        async with self._lock, asyncio.timeout(_START_DEADLINE):
            stdin.write(json.dumps({"arguments": arguments, "log": str(log)}).encode() + b"\n")
            await stdin.drain()
            answer = await stdout.readline()
        return Process(int(answer))


def _main() -> None:
    # Everything that a controller imports, lazily or not, is imported here once.
    import uvloop  # noqa: PLC0415

    from controller import process  # noqa: PLC0415
    from controller.cli import main as command_line  # noqa: PLC0415
    from controller.kube import library  # noqa: PLC0415

    library.load()
    del uvloop, process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # this process waits for no child, and must leave no zombies
    gc.freeze()
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(wanted, command_line.main)
        print(pid, flush=True)  # noqa: T201 - the answer
    os.killpg(0, signal.SIGKILL)


def _become(wanted: dict[str, Any], main: Any) -> None:
    """Run the controller in this process and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sink = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (sink, 1), (sink, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGUSR1, _log_tasks)
    sys.argv = ["vmsim", *wanted["arguments"]]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _log_tasks(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(1, json.dumps({TASKS: len(asyncio.all_tasks())}).encode() + b"\n")


if __name__ == "__main__":
    _main()
