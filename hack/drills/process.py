"""The controller as a child process, which a drill can kill and start again.

Guarantees: at most one process runs at a time, and none when the context ends; a process that ends by itself is an
error.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Self

from controller.controlplane import controllers
from hack.drills.errors import DrillError

_START_DEADLINE: Final = 30.0
_STOP_DEADLINE: Final = 20.0
_POLL: Final = 0.05
_FILLED: Final = b'"event": "caches filled"'


class Controller:
    """Runs the controller. Use as an async context manager; `start` starts it."""

    def __init__(self, kubeconfig: str, log: Path, *arguments: str) -> None:
        self._command = controllers.command(*arguments)
        self._environment = controllers.environment(kubeconfig)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._log_from = 0
        self._wanted = False

    async def __aenter__(self) -> Self:
        self._log.unlink(missing_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, *flags: str) -> None:
        """Start it with additional flags; it appends to the log."""
        # A session of its own, so that a terminal's Ctrl-C reaches only this program.
        with self._log.open("ab") as sink:
            self._log_from = sink.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, *flags, env=self._environment, stdout=sink, stderr=sink, start_new_session=True
            )
        self._wanted = True

    async def ready(self) -> None:
        """Return when the process that was last started has filled its caches. Raises DrillError after 30 s."""
        deadline = asyncio.get_running_loop().time() + _START_DEADLINE
        while _FILLED not in self._log.read_bytes()[self._log_from :]:
            if self._process is None or self._process.returncode is not None:
                raise DrillError(f"the controller did not start; its log: {self._log}")
            if asyncio.get_running_loop().time() > deadline:
                raise DrillError(f"the controller was not ready within {_START_DEADLINE:.0f} s; its log: {self._log}")
            await asyncio.sleep(_POLL)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._wanted = False
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after 20 s."""
        self._wanted = False
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_DEADLINE)
        finally:
            await self.kill()

    async def failure(self) -> None:
        """Wait for the end of the process; raise DrillError if it ended by itself."""
        if (process := self._process) is None:
            return
        code = await process.wait()
        if self._wanted and process is self._process:
            raise DrillError(f"the controller ended with exit code {code}; its log: {self._log}")
