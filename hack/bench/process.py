"""A contestant as a running process.

Guarantees: it has ended when the context ends; a process that ends by itself is an error with the end of its log.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from hack.bench import machine
from hack.bench.contestants import REPOSITORY, Launch
from hack.bench.errors import BenchError

_START_DEADLINE: Final = 180.0
_STOP_DEADLINE: Final = 30.0
_POLL: Final = 0.02
_TAIL: Final = 2000
_RECONCILED: Final = re.compile(
    r'^controller_runtime_reconcile_total\{[^}]*controller="virtualmachine"[^}]*\} (\S+)$', re.MULTILINE
)


@dataclass(slots=True)
class Running:
    """A process that was started; times are those of the event loop."""

    process: asyncio.subprocess.Process
    log: Path
    started: float
    ready_url: str
    metrics_url: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return machine.cpu_seconds(self.pid)

    async def ready(self) -> float:
        """Wait until its readiness probe succeeds; return the seconds since its start. Raises BenchError."""
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session:
            while loop.time() < self.started + _START_DEADLINE:
                self.check()
                try:
                    async with session.get(self.ready_url) as response:
                        if response.ok:
                            return loop.time() - self.started
                except aiohttp.ClientError:
                    pass  # it does not listen yet
                await asyncio.sleep(_POLL)
        raise BenchError(f"not ready within {_START_DEADLINE:.0f} s; its log ends: {self._tail()}")

    async def reconciled(self) -> float:
        """Return the number of its reconciles, by its own metric."""
        async with aiohttp.ClientSession() as session, session.get(self.metrics_url) as response:
            return sum(float(value) for value in _RECONCILED.findall(await response.text()))

    async def ended(self) -> None:
        """Wait until it ends, and raise BenchError."""
        await self.process.wait()
        self.check()

    def check(self) -> None:
        """Raise BenchError if it has ended."""
        if self.process.returncode is not None:
            raise BenchError(f"it ended with exit code {self.process.returncode}; its log ends: {self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL:].strip() or "(nothing)"


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    """Send SIGTERM to a process that runs, and SIGKILL after `grace` seconds."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def started(launch: Launch, kubeconfig: Path, log: Path) -> AsyncIterator[Running]:
    """Start a program; it gets SIGTERM when the context ends, and SIGKILL after 30 s."""
    metrics, health = _free_ports(2)
    values = {"kubeconfig": str(kubeconfig), "metrics": str(metrics), "health": str(health)}
    command = [part.format_map(values) for part in launch.command]
    environment = {**os.environ, **{key: value.format_map(values) for key, value in launch.environment.items()}}
    with log.open("wb") as sink:
        begun = asyncio.get_running_loop().time()
        process = await asyncio.create_subprocess_exec(
            *command, cwd=REPOSITORY, env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        yield Running(process, log, begun, launch.ready.format_map(values), f"http://127.0.0.1:{metrics}/metrics")
    finally:
        await _end(process, _STOP_DEADLINE)


def _free_ports(count: int) -> list[int]:
    """Return free ports; all stay bound until the last one is found, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
