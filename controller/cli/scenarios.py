"""The flags of `vmsim load` and `vmsim unload`; the modules of these names carry them out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from controller.cli.connection import Connection, connecting
from controller.domain.vm.policy import FASTEST, SLOWEST

# Each command imports its module when it runs, as in moving.py.

_DEADLINE = 300.0


class DryRun(StrEnum):
    """The values of `--dry-run`: without any request, or with dry runs on the API server."""

    CLIENT = "client"
    SERVER = "server"


class LoadCommand(TyperCommand):
    """Accepts `--dry-run` without a value, as kubectl does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--dry-run` its value, and parse."""
        end = args.index("--") if "--" in args else len(args)
        words = [f"{word}={DryRun.CLIENT}" if word == "--dry-run" else word for word in args[:end]]
        return super().parse_args(ctx, words + args[end:])


def complete(incomplete: str) -> list[str]:
    """Return completions of FILE: shipped scenarios, YAML files, and directories."""
    from controller.scenario import files  # noqa: PLC0415

    directory, slash, begin = incomplete.rpartition("/")
    folder = Path(directory or ("/" if slash else "."))
    try:
        beside = sorted(path for path in folder.iterdir() if path.name.startswith(begin))
    except OSError:
        beside = []
    shown = [path for path in beside if begin or not path.name.startswith(".")]
    paths = [f"{directory}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in shown]
    shipped = [name for name in files.shipped() if name.startswith(incomplete)]
    return [*shipped, *(path for path in paths if path.endswith(("/", ".yaml", ".yml")))]


def complete_dry_run(incomplete: str) -> list[str]:
    """Return completions after --dry-run: its values, or FILE if it stands without one."""
    return [*(word for word in DryRun if word.startswith(incomplete)), *complete(incomplete)]


@connecting(default="the file's, then the kubeconfig's")
def load(
    *,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            autocompletion=complete,
            help="Scenario file, or the name of a shipped scenario: quickstart, hot-node, diurnal, zones.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        DryRun | None,
        typer.Option(
            metavar="[=client|server]",
            autocompletion=complete_dry_run,
            help="Print what would be created, and create nothing; client: send no request; server: send dry runs.",
            show_default=False,
        ),
    ] = None,
    exact_placement: Annotated[
        bool,
        typer.Option(
            "--exact-placement",
            help="Start VMs on the nodes that the file names, and on no others, instead of preferring them.",
        ),
    ] = False,
    play: Annotated[
        bool, typer.Option("--play/--no-play", help="Change the VMs' consumption over time once all VMs run.")
    ] = True,
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            min=SLOWEST,
            max=FASTEST,
            help="Simulated seconds in a real one; a controller at another speed than 1 allows no other.",
            show_default="the file's, then the controller's",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(metavar="N", min=0.1, max=1000, help="Consumption writes per second, at most.")
    ] = 20.0,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Give up after this time, with exit code 1.")
    ] = _DEADLINE,
    connection: Connection,
) -> None:
    """Create a scenario's nodes and VMs, and play it.

    Waits until all VMs run, then changes their consumption over time. Objects that exist already are not changed, so
    loading twice changes nothing. A play starts at the beginning each time, and ends with the scenario or on Ctrl-C;
    the VMs stay.
    """
    from controller.cli import load  # noqa: PLC0415

    request = load.Request(
        file=file,
        namespace=connection.namespace,
        dry_run=dry_run,
        exact_placement=exact_placement,
        play=play,
        speed=speed,
        rate=rate,
        timeout=timeout,
    )
    load.run(connection, request)


@connecting(namespace="Delete nothing if the scenario has VMs in another namespace.", default="none")
def unload(
    *,
    scenario: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="Scenario file, or the scenario's name.", show_default=False)
    ],
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Give up after this time, with exit code 1.")
    ] = _DEADLINE,
    connection: Connection,
) -> None:
    """Delete what loading a scenario created.

    Deletes the VMs and nodes labelled with the scenario's name, in all namespaces; returns when they and the VMs' pods
    no longer exist.
    """
    from controller.cli import unload  # noqa: PLC0415

    unload.run(connection, scenario, timeout)
