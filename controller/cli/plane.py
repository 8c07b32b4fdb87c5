"""`vmsim up`, `down` and `status`: the commands of the local control plane.

Guarantees: an expected failure is an `error:` line and a `hint:` line with what to do next, never a traceback.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.table import Table

from controller import signals
from controller.cli.exits import FAILED, INTERRUPTED
from controller.cli.local import Obtaining, Plane
from controller.controlplane import credentials, schedulers
from controller.controlplane.binaries import obtain
from controller.controlplane.download import Bases
from controller.controlplane.errors import FREE_SPACE, ControlPlaneError, InvalidSettingError, says_full
from controller.controlplane.nodes import NodeCapacity
from controller.controlplane.plane import ControlPlane, Found, default_sources
from controller.controlplane.report import default_reporter
from controller.controlplane.sources import Sources
from controller.operations.errors import SimulatorError


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise KeyboardInterrupt on a request to stop; print an expected failure in two lines, and exit with code 1."""
    signals.end_as_interrupted()
    try:
        yield
    except ControlPlaneError as error:
        _explain(str(error), error.hint)
    except (SimulatorError, BrokenPipeError):
        raise  # they need no hint; TimedOutError and a closed pipe are OSErrors, too
    except OSError as error:
        hint = "check that path, its permissions and its disk's free space; --state and --cache-dir choose others"
        _explain(str(error), FREE_SPACE if says_full(str(error)) else hint)


def _explain(message: str, hint: str) -> NoReturn:
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    typer.echo(f"hint: {hint}", err=True)
    raise typer.Exit(FAILED)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        with failures_explained():
            yield
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(INTERRUPTED) from None


def up(wanted: Plane, obtaining: Obtaining, kubeconfig: Path | None) -> None:
    """Start, repair or change the control plane, and print how to use it."""
    with _interruptible():
        plane = ControlPlane(
            wanted.state,
            nodes=wanted.nodes,
            capacity=NodeCapacity(wanted.cpu, wanted.memory, wanted.pods),
            audit_policy=wanted.audit_policy,
            component_args=parse_component_args(wanted.component_args),
            scheduler_files=parse_schedulers(wanted.schedulers),
            wait=wanted.wait,
            sources=_sources(obtaining),
        )
        if kubeconfig is not None:
            credentials.refuse_existing(kubeconfig)
        found = plane.found()
        plane.up()
        if kubeconfig is not None:
            credentials.write(kubeconfig, plane.kubeconfig)
        typer.echo(f"ready: export KUBECONFIG={(kubeconfig or plane.kubeconfig).absolute()}")
        if found is Found.NOTHING:
            typer.echo("next: vmsim install and vmsim controller; or vmsim run, which does both", err=True)


def obtain_only(obtaining: Obtaining) -> None:
    """Obtain all programs, and print their paths."""
    with _interruptible():
        for path in obtain(_sources(obtaining), default_reporter()).values():
            typer.echo(path)


def down(state: Path) -> None:
    """Stop the control plane, and remove its data."""
    with _interruptible():
        existed = ControlPlane(state).down()
    typer.echo(f"the control plane in {state} is removed" if existed else f"no control plane in {state}", err=True)


def status(state: Path) -> None:
    """Print the control plane's components, and exit with code 1 unless all are alive."""
    with _interruptible():
        plane = ControlPlane(state)
        components = plane.status()
    if not components:
        typer.echo(f"no control plane in {state}; vmsim up starts one")
        raise typer.Exit(FAILED)
    table = Table("component", "pid", "port", "alive")
    for component in components:
        alive = "yes" if component.pid else "no"
        table.add_row(component.name, str(component.pid or "-"), str(component.port), alive)
    Console().print(table)
    if any(component.pid is None for component in components):
        typer.echo("hint: vmsim up starts what is not alive; vmsim down removes the control plane", err=True)
        raise typer.Exit(FAILED)
    typer.echo(f"export KUBECONFIG={plane.kubeconfig}")


def parse_component_args(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Parse COMPONENT=FLAG=VALUE. Raises InvalidSettingError."""
    parsed: dict[str, dict[str, str]] = {}
    for text in texts:
        match text.split("=", 2):
            case [component, flag, value] if component and flag:
                parsed.setdefault(component, {})[flag.removeprefix("--")] = value
            case _:
                raise InvalidSettingError("--component-arg", f"{text!r} is not COMPONENT=FLAG=VALUE")
    return parsed


def parse_schedulers(texts: tuple[str, ...]) -> dict[str, Path]:
    """Parse NAME=FILE, where FILE may name a shipped configuration. Raises InvalidSettingError."""
    parsed: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise InvalidSettingError("--scheduler", f"{text!r} is not NAME=FILE")
        if name in parsed:
            raise InvalidSettingError("--scheduler", f"{name} is given twice")
        parsed[name] = schedulers.find(file)
    return parsed


def _sources(obtaining: Obtaining) -> Sources:
    """Return where programs come from: as the flags say, else this machine's defaults."""
    named = {"VMSIM_CACHE_DIR": str(obtaining.cache_dir)} if obtaining.cache_dir else {}
    defaults = Bases()
    return replace(
        default_sources({**os.environ, **named}),
        assets=obtaining.assets,
        download=not obtaining.no_download,
        build=not obtaining.no_build,
        bases=Bases(
            kubernetes=obtaining.kubernetes_base or defaults.kubernetes,
            etcd=obtaining.etcd_base or defaults.etcd,
            kwok=obtaining.kwok_base or defaults.kwok,
            kwok_sums=obtaining.kwok_sums,
        ),
    )
