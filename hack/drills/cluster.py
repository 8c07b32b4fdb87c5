"""The cluster that a drill runs on: a control plane of its own, or the one that kubectl would use.

Guarantees: a control plane that was started is stopped however the drill ends; an existing cluster gets a namespace
for the drill, which is deleted at the end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from controller import signals
from controller.controlplane.binaries import find_kubectl
from controller.controlplane.command import CommandError, run
from controller.controlplane.plane import ControlPlane, default_sources
from controller.kube import credentials
from controller.operations.installing import install_on
from hack.drills.errors import DrillError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_DEADLINE: Final = 90.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster: its kubeconfig, in the form of KUBECONFIG, a kubectl that fits it, and whether the drill owns it."""

    kubeconfig: str
    kubectl: Path
    own: bool

    async def command(self, *command: str) -> str:
        """Run a command against this cluster within 90 s and return its output. Raises DrillError."""
        environment = {**os.environ, "KUBECONFIG": self.kubeconfig, "KUBECTL": str(self.kubectl)}
        try:
            return await run(*command, environment=environment, deadline=_DEADLINE)
        except CommandError as error:
            raise DrillError(str(error)) from error

    @asynccontextmanager
    async def namespace(self) -> AsyncIterator[str]:
        """Install the resources and create a namespace; delete it afterwards unless the drill owns the cluster."""
        await install_on(credentials.Source(self.kubeconfig, listed=True))
        name = f"drill-{uuid4().hex[:8]}"
        kubectl = str(self.kubectl)
        await self.command(kubectl, "create", "namespace", name)
        try:
            # The API server refuses every pod in the namespace until it has its service account.
            await self.command(
                *(kubectl, "wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=60s")
            )
            yield name
        finally:
            if not self.own:
                await self.command(kubectl, "delete", "namespace", name, "--wait=true", f"--timeout={_DEADLINE:.0f}s")


@contextmanager
def local(directory: Path, nodes: int) -> Iterator[Cluster]:
    """Run a control plane in a directory without one, while the context lasts."""
    plane = ControlPlane(directory, nodes=nodes)
    if any(status.pid is not None for status in plane.status()):
        raise DrillError(f"a control plane runs in {directory}, and a drill needs its own: choose another --dir")
    try:
        plane.up()
        yield Cluster(str(plane.kubeconfig), plane.kubectl, own=True)
    finally:
        # A second request to stop must not leave processes behind.
        with signals.uninterrupted():
            plane.down()


def current() -> Cluster:
    """Return the cluster that kubectl would use."""
    sources = default_sources()
    source = credentials.find(None)
    if source.kubeconfig is None:
        raise DrillError("--cluster current needs a kubeconfig: set KUBECONFIG, or create ~/.kube/config")
    return Cluster(source.kubeconfig, find_kubectl(sources.search_path, sources.beside), own=False)
