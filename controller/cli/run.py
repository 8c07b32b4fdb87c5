"""`vmsim run`: starts a control plane and a controller, shows the example VMs, and stops everything.

Guarantees: however the command ends, it stops what it started (control plane, controller); what was running before
keeps running, and a control plane that was stopped before keeps its objects. A controller that a killed run left behind
is ended before another one is started, on any cluster. With `--once` the exit code is 0 only if every example VM runs
before the deadline.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import typer
from rich.console import Console
from rich.live import Live

from controller import package_data, signals
from controller.cli.exits import INTERRUPTED, CommandError, fail
from controller.cli.plane import failures_explained
from controller.cli.session import explain
from controller.cli.vm_table import not_running, table
from controller.controlplane import command, controllers
from controller.controlplane.binaries import find_kubectl
from controller.controlplane.plane import ControlPlane, Found, default_sources
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.reflector import Reflector
from controller.engine.store import Store
from controller.kube import credentials, managers
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.kube.resources import NODES
from controller.operations import installing
from controller.operations.errors import SimulatorError
from controller.telemetry import logs

EXAMPLES: Final = "manifests/examples/example-vms.yaml"
EXAMPLE_VMS: Final = frozenset({"default/vm-small-1", "default/vm-medium-1", "default/vm-large-1"})

_REFRESH: Final = 0.25
_PIPE_WIDTH: Final = 120
_APPLY_DEADLINE: Final = 90.0
_LEFT: Final = {
    Found.RUNNING: "The control plane was there before and stays; `vmsim down` stops it.",
    Found.STOPPED: "The control plane is stopped again and keeps its objects; `vmsim down` removes it.",
}


@dataclass(frozen=True, slots=True)
class Request:
    """The command's arguments; `deadline` is in seconds."""

    once: bool
    deadline: float
    nodes: int
    current: bool
    state: Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster to use: its kubeconfig, as in $KUBECONFIG, and a kubectl of a compatible version."""

    kubeconfig: str
    kubectl: Path


def main(request: Request) -> None:
    """Run the demonstration and exit."""
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    try:
        with failures_explained(), _cluster(request) as cluster:
            code = asyncio.run(_demonstrate(cluster, request))
    except (CommandError, command.CommandError, SimulatorError) as error:
        fail(str(error))
    except KubeError as error:
        fail(explain(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


@contextmanager
def _cluster(request: Request) -> Iterator[Cluster]:
    plane = ControlPlane(request.state, nodes=request.nodes)
    plane.end_leftovers()  # the controller of a killed run would act beside ours
    if request.current:
        sources = default_sources()
        source = credentials.find(None)
        if source.kubeconfig is None:
            raise CommandError("--cluster current needs a kubeconfig: set KUBECONFIG, or make ~/.kube/config")
        yield Cluster(source.kubeconfig, find_kubectl(sources.search_path, sources.beside))
        return
    with plane.borrowed(_report_left):
        typer.echo(f"\nIn another terminal:\n\n    export KUBECONFIG={plane.kubeconfig}\n")
        sys.stdout.flush()
        yield Cluster(str(plane.kubeconfig), plane.kubectl)


def _report_left(found: Found) -> None:
    if found in _LEFT:
        typer.echo(_LEFT[found], err=True)


@dataclass(slots=True)
class _Stop:
    """Handles the first request to stop: cancels the start, or closes the table once it is shown.

    SIGHUP arrives twice, from the kernel and from the shell: the second must not interrupt the cleanup.
    """

    task: asyncio.Task[object] | None
    close: asyncio.Event
    asked: bool = False
    showing: bool = False

    def ask(self) -> None:
        """Handle a request to stop."""
        if not self.asked:
            self.asked = True
            if self.showing:
                self.close.set()
            elif self.task is not None:
                self.task.cancel()


async def _demonstrate(cluster: Cluster, request: Request) -> int:
    stop = _Stop(asyncio.current_task(), asyncio.Event())
    with signals.handled(stop.ask):
        return await _set_up_and_show(cluster, request, stop)


async def _set_up_and_show(cluster: Cluster, request: Request, stop: _Stop) -> int:
    source = credentials.Source(cluster.kubeconfig, listed=True)
    async with await Client.connect(source, manager=managers.SETUP) as client:
        async for _ in installing.install(client):
            pass
        request.state.mkdir(parents=True, exist_ok=True)
        with controllers.running(cluster.kubeconfig, request.state) as running:
            if not (await client.list_page(NODES, limit=1, label_selector="type=kwok")).items:
                raise CommandError(
                    "no fake node: VMs run on nodes labelled type=kwok, and this cluster has none; add some with KWOK"
                )
            await _apply_examples(cluster)
            store: Store[VirtualMachine] = Store()
            reflector = asyncio.create_task(Reflector(client, VIRTUAL_MACHINES, store, rng=Random()).run())  # noqa: S311 - spreads retries
            try:
                return await _show(store, running, request, stop)
            finally:
                reflector.cancel()
                await asyncio.wait({reflector})


async def _apply_examples(cluster: Cluster) -> None:
    """Apply the example VMs with kubectl, so that a later `kubectl apply` by the user prints no warning."""
    examples = str(package_data.path(EXAMPLES))
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig}
    await command.run(
        *(str(cluster.kubectl), "apply", "-f", examples), environment=environment, deadline=_APPLY_DEADLINE
    )


def _caption(metrics: str | None, log: Path) -> str:
    first = f"Metrics: {metrics}\n" if metrics is not None else ""
    return f"\n{first}Ctrl-C stops everything. Controller's log: {log}"


async def _show(store: Store[VirtualMachine], running: controllers.Running, request: Request, stop: _Stop) -> int:
    """Draw the table until a request to stop, or, with `--once`, until every VM runs; return the exit code."""
    loop = asyncio.get_running_loop()
    stop.showing = True
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    ends_at = loop.time() + request.deadline
    metrics = None
    with Live(console=console, auto_refresh=False, transient=request.once) as live:
        while not stop.asked:
            running.check()
            metrics = metrics or controllers.metrics_url(running.log)
            caption = "" if request.once else _caption(metrics, running.log)
            live.update(table(store, caption=caption), refresh=console.is_terminal)
            if request.once and _all_run(store, late=loop.time() > ends_at, deadline=request.deadline):
                break
            try:
                await asyncio.wait_for(stop.close.wait(), _REFRESH)
            except TimeoutError:
                continue
    if not request.once or stop.asked:
        typer.echo("stopping …", err=True)
    if request.once:
        console.print(table(store, caption=""))
        return INTERRUPTED if stop.asked else 0
    return 0


def _all_run(store: Store[VirtualMachine], *, late: bool, deadline: float) -> bool:
    """Return whether every example VM runs. Raises CommandError with the reasons after the deadline (`late`)."""
    waiting = not_running(vm for vm in store if vm.metadata.key in EXAMPLE_VMS)
    missing = [f"{key} does not exist" for key in sorted(EXAMPLE_VMS) if store.get(key) is None]
    if not waiting and not missing:
        return True
    if late:
        reasons = "\n  ".join([*missing, *waiting])
        raise CommandError(f"after {deadline:.0f} s not every VM runs:\n  {reasons}")
    return False
