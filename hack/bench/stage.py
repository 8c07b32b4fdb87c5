"""A control plane with our resources for one measurement: it creates objects fast, and reads the counters.

Guarantees: each plane is the measurement's own; it is removed when the context ends.
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
"""The number of the benchmark's own requests in flight."""
_SERVER_DEADLINE: Final = 30.0
_QUIET_WINDOW: Final = 2.0
_QUIET_SHARE: Final = 0.25
"""A plane is quiet if its components use less CPU, as a share of a core: health checks and leases never stop."""
_QUIET_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One plane, and a client for it."""

    plane: ControlPlane
    directory: Path
    client: Client

    @property
    def log(self) -> Path:
        """The file of the contestant's log."""
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
        """Wait, at most 60 s, until the plane's components have no work left."""
        clock = asyncio.get_running_loop().time
        pids, ends = self.plane.pids(), clock() + _QUIET_TIMEOUT
        while clock() < ends:
            before = machine.cpu_of(pids)
            await asyncio.sleep(_QUIET_WINDOW)
            if machine.cpu_of(pids) - before < _QUIET_SHARE * _QUIET_WINDOW:
                return


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Await `act` for every item, as many at a time as there are connections."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


@asynccontextmanager
async def fresh(nodes: int, report: Reporter) -> AsyncIterator[Stage]:
    """Create a plane that has only nodes and our resources."""
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
