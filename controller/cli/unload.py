"""`vmsim unload`: remove what loading a scenario made, and wait until it is gone.

Guarantees: idempotent; a scenario whose file is lost or broken can be unloaded by the name it gave itself.
"""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controller.cli import session
from controller.cli.load import both, read
from controller.kube.client import Client
from controller.scenario import files
from controller.scenario.unloading import Removal, unload


def run(kubeconfig: str | None, scenario: str, timeout: float) -> None:
    """Remove everything, and exit."""
    name = name_of(scenario)

    async def work(client: Client, _: str) -> int:
        console = session.console()
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bars:
            bar = bars.add_task(f"unloading {name}", total=None)

            def report(removal: Removal) -> None:
                bars.update(bar, total=removal.total, completed=removal.done)

            removed = await unload(client, name, report=report, deadline=timeout)
        gone = both(len(removed.nodes), len(removed.vms))
        console.print(f"{name} is unloaded: {f'{gone} removed' if gone else 'nothing of it was there'}")
        return 0

    session.run(kubeconfig, work)


def name_of(scenario: str) -> str:
    """Return the name of a scenario that is given by its file or by its name."""
    looks_like_file = "/" in scenario or Path(scenario).suffix in (".yaml", ".yml")
    return read(scenario).name if looks_like_file or files.find(scenario) is not None else scenario
