"""The command line: `python -m controller.controlplane up|down|status|build`.

A person never sees a traceback for an expected failure: one line says what happened, one what to do next.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from controller import signals
from controller.controlplane.binaries import obtain
from controller.controlplane.download import GITHUB_BASE, KUBERNETES_BASE, Bases
from controller.controlplane.errors import FREE_SPACE, ControlPlaneError, InvalidSettingError, says_full
from controller.controlplane.nodes import NodeCapacity
from controller.controlplane.plane import ControlPlane, default_sources
from controller.controlplane.report import default_reporter
from controller.controlplane.sources import Sources

_REPOSITORY = Path(__file__).resolve().parents[2]
_INTERRUPTED = 130

app = typer.Typer(
    help="A real Kubernetes control plane on this machine: no Docker, loopback only, fake nodes by KWOK.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Directory = Annotated[
    Path, typer.Option("--dir", help="Directory for the state and the kubeconfig.", show_default="REPOSITORY/.vmsim")
]
Wait = Annotated[float, typer.Option(help="Seconds until the control plane, then its nodes, must be ready.")]
Assets = Annotated[
    Path | None,
    typer.Option(
        envvar="KUBEBUILDER_ASSETS",
        help="Directory of binaries to use first; one of another minor release is an error.",
        show_default="none",
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        envvar="VMSIM_CACHE_DIR",
        help="Directory for obtained binaries.",
        show_default="$XDG_CACHE_HOME/vmsim or ~/.cache/vmsim, ~/Library/Caches/vmsim on macOS",
    ),
]
NoDownload = Annotated[bool, typer.Option("--no-download", "--offline", help="Download no release files.")]
NoBuild = Annotated[bool, typer.Option("--no-build", help="Build nothing with Go; fail if binaries are missing.")]
KubernetesBase = Annotated[
    str,
    typer.Option(envvar="VMSIM_DOWNLOAD_BASE_KUBERNETES", help="Address of the Kubernetes releases."),
]
EtcdBase = Annotated[
    str, typer.Option(envvar="VMSIM_DOWNLOAD_BASE_ETCD", help="Address of the etcd releases, laid out as GitHub's.")
]
KwokBase = Annotated[
    str, typer.Option(envvar="VMSIM_DOWNLOAD_BASE_KWOK", help="Address of the KWOK releases, laid out as GitHub's.")
]
KwokSums = Annotated[
    Path | None,
    typer.Option(
        envvar="VMSIM_KWOK_SHA256SUMS",
        help="File of SHA-256 digests of KWOK's release files, which it does not publish; "
        "without it KWOK is built, not downloaded.",
        show_default="none",
    ),
]


@contextmanager
def _failures_explained() -> Iterator[None]:
    try:
        yield
    except ControlPlaneError as error:
        _explain(str(error), error.hint)
        raise typer.Exit(1) from None
    except OSError as error:
        hint = "check the permissions of that path and the free space of its disk"
        _explain(str(error), FREE_SPACE if says_full(str(error)) else hint)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _explain(message: str, hint: str) -> None:
    typer.echo(f"error: {message}\nhint: {hint}", err=True)


@app.command()
def up(
    *,
    directory: Directory = _REPOSITORY / ".vmsim",
    nodes: Annotated[int, typer.Option(help="Number of fake nodes, kwok-node-1 and up.")] = 3,
    node_cpu: Annotated[str, typer.Option(help="CPUs of each node.")] = "32",
    node_memory: Annotated[str, typer.Option(help="Memory of each node.")] = "256Gi",
    node_pods: Annotated[int, typer.Option(help="Pods that each node can hold.")] = 110,
    wait: Wait = 120.0,
    audit_policy: Annotated[
        Path | None, typer.Option(help="Audit policy of kube-apiserver.", show_default="none")
    ] = None,
    component_arg: Annotated[
        list[str] | None,
        typer.Option(
            help="COMPONENT=FLAG=VALUE: one more argument of a component; can be repeated.", show_default="none"
        ),
    ] = None,
    assets: Assets = None,
    cache_dir: CacheDir = None,
    no_download: NoDownload = False,
    no_build: NoBuild = False,
    kubernetes_base: KubernetesBase = KUBERNETES_BASE,
    etcd_base: EtcdBase = GITHUB_BASE,
    kwok_base: KwokBase = GITHUB_BASE,
    kwok_sums: KwokSums = None,
) -> None:
    """Start the control plane, or repair it, or change its nodes; return when all is ready."""
    with _failures_explained():
        plane = ControlPlane(
            directory,
            nodes=nodes,
            capacity=NodeCapacity(node_cpu, node_memory, node_pods),
            audit_policy=audit_policy,
            component_args=parse_component_args(component_arg or []),
            wait=wait,
            sources=_sources(
                assets=assets,
                cache_dir=cache_dir,
                no_download=no_download,
                no_build=no_build,
                bases=Bases(kubernetes_base, etcd_base, kwok_base, kwok_sums),
            ),
        )
        plane.up()
        typer.echo(f"ready: export KUBECONFIG={plane.kubeconfig}")


@app.command()
def down(directory: Directory = _REPOSITORY / ".vmsim") -> None:
    """Stop the control plane and remove its data; fine if there is none."""
    with _failures_explained():
        ControlPlane(directory).down()


@app.command()
def status(directory: Directory = _REPOSITORY / ".vmsim") -> None:
    """Show the components; exit code 1 unless all are alive."""
    with _failures_explained():
        components = ControlPlane(directory).status()
    if not components:
        typer.echo(f"no control plane in {directory}")
        raise typer.Exit(1)
    table = Table("component", "pid", "port", "alive")
    for component in components:
        table.add_row(
            component.name,
            str(component.pid or "-"),
            str(component.port),
            "yes" if component.pid else "no",
        )
    Console().print(table)
    if any(component.pid is None for component in components):
        raise typer.Exit(1)


@app.command()
def build(
    *,
    assets: Assets = None,
    cache_dir: CacheDir = None,
    no_download: NoDownload = False,
    no_build: NoBuild = False,
    kubernetes_base: KubernetesBase = KUBERNETES_BASE,
    etcd_base: EtcdBase = GITHUB_BASE,
    kwok_base: KwokBase = GITHUB_BASE,
    kwok_sums: KwokSums = None,
) -> None:
    """Obtain all binaries without starting anything, and print where they are."""
    with _failures_explained():
        sources = _sources(
            assets=assets,
            cache_dir=cache_dir,
            no_download=no_download,
            no_build=no_build,
            bases=Bases(kubernetes_base, etcd_base, kwok_base, kwok_sums),
        )
        for path in obtain(sources, default_reporter()).values():
            typer.echo(path)


def parse_component_args(texts: list[str]) -> dict[str, dict[str, str]]:
    """Read COMPONENT=FLAG=VALUE."""
    parsed: dict[str, dict[str, str]] = {}
    for text in texts:
        match text.split("=", 2):
            case [component, flag, value] if component and flag:
                parsed.setdefault(component, {})[flag.removeprefix("--")] = value
            case _:
                raise InvalidSettingError("--component-arg", f"{text!r} is not COMPONENT=FLAG=VALUE")
    return parsed


def _sources(
    *, assets: Path | None, cache_dir: Path | None, no_download: bool, no_build: bool, bases: Bases
) -> Sources:
    named = {"VMSIM_CACHE_DIR": str(cache_dir)} if cache_dir else {}
    return replace(
        default_sources({**os.environ, **named}),
        assets=assets,
        download=not no_download,
        build=not no_build,
        bases=bases,
    )


def main() -> None:
    """Run the command line."""
    signals.end_as_interrupted()
    app()
