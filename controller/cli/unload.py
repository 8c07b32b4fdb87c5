"""`vmsim unload`: deletes what loading a scenario created, and waits until it no longer exists.

Guarantees: idempotent; reports by name, within ten seconds, what it waits for; a scenario whose file is lost or broken
can be unloaded by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from controller.cli import exits, session
from controller.cli.connection import Connection
from controller.cli.lines import Lines, bar_with_reason
from controller.cli.load import nodes_and_vms, read
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.listing import everything
from controller.kube import managers
from controller.kube.client import Client
from controller.operations.text import one_line
from controller.scenario import files
from controller.scenario.errors import reasons
from controller.scenario.fleet import selector
from controller.scenario.unloading import Removal, unload

_SPARSE: Final = 8.0
"""Seconds between two lines where there is no terminal."""


def run(connection: Connection, scenario: str, timeout: float) -> None:
    """Unload the scenario, and exit."""
    name = name_of(scenario)

    async def work(client: Client, _: session.Scope) -> int:
        console = session.console()
        if connection.namespace is not None:
            await _stay_within(client, name, connection.namespace)
        with _bar(console, name) as report:
            removed = await unload(client, name, report=report, deadline=timeout)
        gone = nodes_and_vms(len(removed.nodes), len(removed.vms))
        console.print(f"{name} is unloaded: {f'{gone} removed' if gone else 'nothing of it was there'}")
        return 0

    session.run(connection, work, manager=managers.UNLOAD)


async def _stay_within(client: Client, name: str, namespace: str) -> None:
    """Raise CommandError if the scenario has VMs in a namespace other than this one."""
    vms = await everything(client, VIRTUAL_MACHINES, label_selector=selector(name))
    others = sorted({vm.metadata.namespace for vm in vms} - {namespace})
    if others:
        raise exits.CommandError(
            f"nothing was removed: {name} also has VMs in namespace {', '.join(others)}; "
            "to remove all of them, leave out --namespace"
        )


def name_of(scenario: str) -> str:
    """Return the name of a scenario that is given by its file or by its name."""
    looks_like_file = "/" in scenario or Path(scenario).suffix in (".yaml", ".yml")
    return read(scenario).name if looks_like_file or files.find(scenario) is not None else scenario


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[Removal], None]]:
    """Show the progress of an unload, and what it waits for: a bar on a terminal, lines at intervals elsewhere."""
    if not console.is_terminal:
        lines = Lines(console, every=_SPARSE)

        def print_line(removal: Removal) -> None:
            if removal.waiting:
                words = f"{removal.done} of {removal.total} removed; waiting for: {one_line(reasons(removal.waiting))}"
                lines.report(None, words)

        yield print_line
        return
    with bar_with_reason(console) as bars:
        bar = bars.add_task(f"unloading {name}", total=None, why="")

        def report(removal: Removal) -> None:
            why = one_line(reasons(removal.waiting))
            bars.update(bar, total=removal.total, completed=removal.done, why=why)

        yield report
