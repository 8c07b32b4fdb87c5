"""A control plane with our resources, and what a measurement does there: make objects fast, look at its counters.

Guarantees: each plane is the measurement's own; it is gone when the context ends.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.controlplane.plane import ControlPlane
from controller.controlplane.report import Reporter
from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.resources import Resource
from controller.operations.installing import install_on
from hack.bench import counters, machine
from hack.bench.objects import NAMESPACE

T = TypeVar("T")

CONNECTIONS: Final = 32
"""Requests that the benchmark itself has under way at the same time."""
_SERVER_DEADLINE: Final = 30.0
_QUIET_WINDOW: Final = 2.0
_QUIET_SHARE: Final = 0.25
"""CPU share below which the components of a plane count as quiet: health checks and leases never cease."""
_QUIET_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One plane, and a client of its own."""

    plane: ControlPlane
    directory: Path
    client: Client

    @property
    def log(self) -> Path:
        """Where the contestant's log goes."""
        return self.directory / "contestant.log"

    def writes(self) -> counters.Writes:
        """Read the API server's counters."""
        [port] = [status.port for status in self.plane.status() if status.name == "kube-apiserver"]
        return counters.read(self.directory, port)

    async def create_all(self, resource: Resource[T], bodies: Iterable[dict[str, Any]]) -> None:
        """Create objects, as many at a time as there are connections."""

        async def create(body: dict[str, Any]) -> None:
            await self.client.create(resource, body, namespace=NAMESPACE, server_deadline=_SERVER_DEADLINE)

        await each(bodies, create)

    async def quiet(self) -> None:
        """Wait, within reason, until the plane's components have nothing left to do."""
        clock = asyncio.get_running_loop().time
        pids, ends = self.plane.pids(), clock() + _QUIET_PATIENCE
        while clock() < ends:
            before = machine.cpu_of(pids)
            await asyncio.sleep(_QUIET_WINDOW)
            if machine.cpu_of(pids) - before < _QUIET_SHARE * _QUIET_WINDOW:
                return


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do something with every item, as many at a time as there are connections."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


@asynccontextmanager
async def fresh(nodes: int, report: Reporter) -> AsyncIterator[Stage]:
    """Make a plane that is empty but for nodes and our resources."""
    with tempfile.TemporaryDirectory(prefix="vmsim-bench-") as parent:
        directory = Path(parent) / "plane"
        with ControlPlane(directory, nodes=nodes, report=report) as plane:
            await install(plane)
            async with on(plane, directory) as stage:
                yield stage


@asynccontextmanager
async def on(plane: ControlPlane, directory: Path) -> AsyncIterator[Stage]:
    """Connect to a plane that is up."""
    async with await Client.connect(credentials.Source(str(plane.kubeconfig)), manager="vmsim-bench") as client:
        stage = Stage(plane, directory, client)
        await stage.quiet()
        yield stage


async def install(plane: ControlPlane) -> None:
    """Install our resources."""
    await install_on(credentials.Source(str(plane.kubeconfig)))
