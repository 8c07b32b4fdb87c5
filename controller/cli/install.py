"""`vmsim install`: installs our CustomResourceDefinitions on a cluster."""

from __future__ import annotations

from controller.cli import session
from controller.cli.connection import Connection
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import installing


def run(connection: Connection) -> None:
    """Install, print what is installed, and exit."""

    async def work(client: Client, _: session.Scope) -> int:
        console = session.console()
        async for name in installing.install(client):
            console.print(f"{name} is installed")
        console.print("Next: vmsim controller runs the controller, vmsim load quickstart makes VMs")
        return 0

    session.run(connection, work, manager=managers.SETUP)
