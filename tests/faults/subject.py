"""The controller under test behind its proxy, restarted whenever it is killed.

Guarantees: it starts with warm caches, by its open watches at the proxy and not by its own word; it is restarted 0.2 s
after each kill, as by a Deployment; none of its processes outlives the context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from tests.faults.proxy import Proxy
from tests.faults.stage import MEMORY, Stage
from tests.faults.wire import STATE, Upstream
from tests.faults.zygote import Process, Zygote

_START: Final = 90.0
_RESTART: Final = 0.2
_POLL: Final = 0.02
_WATCHED: Final = (*STATE, "nodes")


class Subject:
    """One controller. Use `run`."""

    def __init__(self, zygote: Zygote, log: Path) -> None:
        self._zygote = zygote
        self._log = log
        self._arguments: tuple[str, ...] = ()
        self._process: Process | None = None
        self._killed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def run(
        cls, zygote: Zygote, upstream: Upstream, stage: Stage, directory: Path, *, copying: float
    ) -> AsyncIterator[tuple[Self, Proxy]]:
        """Run one while the context lasts; its files are in an existing directory.

        `copying`: seconds for which a live migration copies, or a little less.
        """
        log = directory / "controller.log"
        log.write_bytes(b"")
        subject = cls(zygote, log)
        async with Proxy.serve(upstream, subject.kill) as proxy:
            subject._arguments = (
                *("controller", "--kubeconfig", str(proxy.kubeconfig(directory / "kubeconfig", stage.name))),
                *("--namespaces", stage.name, "--node-selector", stage.node_selector, "--no-leader-elect"),
                *("--metrics-bind-address", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"),
                *("--migration-bandwidth-per-node", "1T", "--bandwidth-per-migration", str(int(MEMORY / copying))),
                *("--dirty-rate", "0", "--dirty-rate-jitter", "0", "--completion-timeout-per-gib", "0"),
            )
            await subject._start()
            restarts = asyncio.create_task(subject._restart())
            try:
                async with asyncio.timeout(_START):
                    while not all(proxy.watched(resource) for resource in _WATCHED):  # noqa: ASYNC110 - soon
                        await asyncio.sleep(_POLL)
                yield subject, proxy
            finally:
                restarts.cancel()
                await asyncio.gather(restarts, return_exceptions=True)
                await subject._end()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._killed.set()

    def problem(self) -> str:
        """Return what is wrong with the process itself; empty if it is well."""
        if self._process is not None and not self._process.alive and not self._killed.is_set():
            return f"the controller has ended by itself; its log: {self._log}"
        if b"failed on a defect" in self._log.read_bytes():
            return f"a reconcile failed on a defect; its log: {self._log}"
        return ""

    async def _start(self) -> None:
        self._process = await self._zygote.spawn(*self._arguments, log=self._log)

    async def _restart(self) -> None:
        while True:
            await self._killed.wait()
            await asyncio.sleep(_RESTART)
            await self._end()
            await self._start()
            self._killed.clear()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.close()
