"""Start everything, show the VMs, stop everything.

Guarantees: what this process started (control plane, controller) is stopped again on every way out; what it found
running is left running, and a control plane that it found stopped keeps its objects. A controller that a killed run
left is ended before another one is started, whatever cluster that is on. With `--once` the exit code is 0 only if every
example VM runs before the deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live

from controller import signals
from controller.controlplane import command, leftovers
from controller.controlplane.binaries import find_kubectl
from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.plane import ControlPlane, default_sources
from controller.domain.objects import VirtualMachine
from controller.domain.resources import VIRTUAL_MACHINES
from controller.engine.reflector import Reflector
from controller.engine.store import Store
from controller.kube import credentials
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.kube.resources import NODES
from controller.telemetry import logs
from hack.demo.table import laggards, table

REPOSITORY: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = REPOSITORY / "manifests" / "examples" / "example-vms.yaml"
EXAMPLE_VMS: Final = frozenset({"default/vm-small-1", "default/vm-medium-1", "default/vm-large-1"})

_REFRESH: Final = 0.25
_PIPE_WIDTH: Final = 120
_SETUP_DEADLINE: Final = 90.0
_STOP_DEADLINE: Final = 20.0
_INTERRUPTED: Final = 130


class DemoError(Exception):
    """What went wrong, in words for a person."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster to use: how to reach it, as KUBECONFIG says it, and kubectl that fits it."""

    kubeconfig: str
    kubectl: Path


def main() -> None:
    """Run the demonstration and exit."""
    arguments = _parse()
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    signals.end_as_interrupted()
    try:
        with _cluster(arguments) as cluster:
            code = asyncio.run(_demonstrate(cluster, arguments))
    except ControlPlaneError as error:
        _complain(f"{error}\nhint: {error.hint}")
    except (DemoError, command.CommandError, KubeError, OSError) as error:
        _complain(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(_INTERRUPTED)
    else:
        sys.exit(code)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="print the final table and exit once every VM runs")
    parser.add_argument("--deadline", type=float, default=60.0, metavar="S", help="seconds for --once (default: 60)")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="fake nodes (default: 3)")
    parser.add_argument(
        "--cluster",
        choices=("local", "current"),
        default="local",
        help="local: start a control plane; current: use the cluster that kubectl would use (default: local)",
    )
    parser.add_argument(
        "--dir", type=Path, default=REPOSITORY / ".vmsim", help="state directory (default: .vmsim in the repository)"
    )
    return parser.parse_args()


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


@contextmanager
def _cluster(arguments: argparse.Namespace) -> Iterator[Cluster]:
    plane = ControlPlane(arguments.dir, nodes=arguments.nodes)
    plane.end_leftovers()  # the controller of a killed run would act beside ours
    if arguments.cluster == "current":
        sources = default_sources()
        source = credentials.find(None)
        if source.kubeconfig is None:
            raise DemoError("CLUSTER=current needs a kubeconfig: set KUBECONFIG, or make ~/.kube/config")
        yield Cluster(source.kubeconfig, find_kubectl(sources.search_path, sources.beside))
        return
    found = plane.status()
    try:
        plane.up()
        print(f"\nIn another terminal:\n\n    export KUBECONFIG={plane.kubeconfig}\n", flush=True)
        yield Cluster(str(plane.kubeconfig), plane.kubectl)
    finally:
        if any(status.pid is not None for status in found):
            print("The control plane was there before and stays; `make down` stops it.", file=sys.stderr)
        elif found:
            with signals.uninterrupted():
                plane.halt()
            print("The control plane is stopped again and keeps its objects; `make down` removes it.", file=sys.stderr)
        else:
            with signals.uninterrupted():
                plane.down()


@dataclass(slots=True)
class _Stop:
    """What a request to stop does: it cancels what is under way, or ends the table once that is shown; only the first.

    The terminal's hang-up comes twice, from the kernel and from the shell: the second must not disturb the end.
    """

    task: asyncio.Task[object] | None
    shown: asyncio.Event
    asked: bool = False
    showing: bool = False

    def ask(self) -> None:
        """Stop."""
        if not self.asked:
            self.asked = True
            if self.showing:
                self.shown.set()
            elif self.task is not None:
                self.task.cancel()


async def _demonstrate(cluster: Cluster, arguments: argparse.Namespace) -> int:
    stop = _Stop(asyncio.current_task(), asyncio.Event())
    with signals.handled(stop.ask):
        return await _set_up_and_show(cluster, arguments, stop)


async def _set_up_and_show(cluster: Cluster, arguments: argparse.Namespace, stop: _Stop) -> int:
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "KUBECTL": str(cluster.kubectl)}
    await command.run(str(REPOSITORY / "hack" / "setup_vm_crd.sh"), environment=environment, deadline=_SETUP_DEADLINE)
    arguments.dir.mkdir(exist_ok=True)
    log = arguments.dir / "controller.log"
    async with (
        await Client.connect(credentials.Source(cluster.kubeconfig, listed=True), manager="vmsim-demo") as client,
        _controller(cluster, log) as process,
    ):
        if not (await client.list_page(NODES, limit=1, label_selector="type=kwok")).items:
            raise DemoError(
                "no fake node: VMs land on nodes labelled type=kwok, and this cluster has none; add some with KWOK"
            )
        await command.run(
            *(str(cluster.kubectl), "apply", "-f", str(EXAMPLES)), environment=environment, deadline=_SETUP_DEADLINE
        )
        store: Store[VirtualMachine] = Store()
        reflector = asyncio.create_task(Reflector(client, VIRTUAL_MACHINES, store, rng=Random()).run())  # noqa: S311
        try:
            return await _show(store, process, arguments, log, stop)
        finally:
            reflector.cancel()
            await asyncio.wait({reflector})


@asynccontextmanager
async def _controller(cluster: Cluster, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the controller while the context lasts; it has a session of its own, so that Ctrl-C reaches us alone."""
    program = (sys.executable, "-m", "controller", "--no-leader-elect", "--metrics-bind-address", "127.0.0.1:0")
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "VMSIM_KUBECONFIG": ""}
    with log.open("w") as sink:
        process = await asyncio.create_subprocess_exec(
            *program, env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        with leftovers.noted(log.parent, process.pid):
            yield process
    finally:
        await command.end(process, _STOP_DEADLINE)


def metrics_url(log: Path) -> str | None:
    """Return where a controller serves its metrics, as the first line of its log tells; None before that is there."""
    with log.open("rb") as lines:
        first = lines.readline()
    try:
        return msgspec.json.decode(first, type=_Starting).metrics
    except msgspec.DecodeError:
        return None


class _Starting(msgspec.Struct):
    metrics: str


def _caption(metrics: str | None, log: Path) -> str:
    told = f"Metrics: {metrics}\n" if metrics is not None else ""
    return f"\n{told}Ctrl-C stops everything. Controller's log: {log}"


async def _show(
    store: Store[VirtualMachine],
    process: asyncio.subprocess.Process,
    arguments: argparse.Namespace,
    log: Path,
    stop: _Stop,
) -> int:
    """Draw the table until asked to stop, or until `--once` has its answer; return the exit code."""
    loop = asyncio.get_running_loop()
    stop.showing = True
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    ends_at = loop.time() + arguments.deadline
    metrics = None
    with Live(console=console, auto_refresh=False, transient=arguments.once) as live:
        while not stop.asked:
            if process.returncode is not None:
                raise DemoError(f"the controller ended with exit code {process.returncode}; its log: {log}")
            metrics = metrics or metrics_url(log)
            caption = "" if arguments.once else _caption(metrics, log)
            live.update(table(store, caption=caption), refresh=console.is_terminal)
            if arguments.once:
                waiting = laggards(vm for vm in store if vm.metadata.key in EXAMPLE_VMS)
                if not waiting and all(store.get(key) is not None for key in EXAMPLE_VMS):
                    break
                if loop.time() > ends_at:
                    missing = [f"{key} is not there" for key in sorted(EXAMPLE_VMS) if store.get(key) is None]
                    reasons = "\n  ".join([*missing, *waiting])
                    raise DemoError(f"after {arguments.deadline:.0f} s not every VM runs:\n  {reasons}")
            try:
                await asyncio.wait_for(stop.shown.wait(), _REFRESH)
            except TimeoutError:
                continue
    if not arguments.once or stop.asked:
        print("stopping …", file=sys.stderr, flush=True)
    if arguments.once:
        console.print(table(store, caption=""))
        return _INTERRUPTED if stop.asked else 0
    return 0
