"""The flags of the commands that set up a cluster: `vmsim up`, `down`, `status`, `run` and `install`.

Guarantees: `controller/controlplane` is imported only when one of these commands runs; on Windows, where a control
plane cannot run, the commands that need one say so, and `install` works.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.cli import exits
from controller.cli.connection import Connection, connecting

STATE: Final = Path(".vmsim")
"""The default folder of the local control plane, below the current folder."""

State = Annotated[Path, typer.Option("--state", metavar="FOLDER", help="Folder of the local control plane.")]
Nodes = Annotated[int, typer.Option(metavar="N", help="Number of fake nodes, named kwok-node-1 and so on.")]

Cpu = Annotated[str, typer.Option(metavar="QUANTITY", help="CPUs of each node.")]
Memory = Annotated[str, typer.Option(metavar="QUANTITY", help="Memory of each node.")]
Pods = Annotated[int, typer.Option(metavar="N", help="Pod capacity of each node.")]
NewKubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the kubeconfig to this file, too; the file must not exist.",
        show_default="only FOLDER/kubeconfig",
    ),
]
ObtainOnly = Annotated[
    bool,
    typer.Option("--obtain-only", help="Obtain the programs, print their paths, and start nothing."),
]
Wait = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="Time for the control plane, and then for its nodes, to become ready."),
]
AuditPolicy = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Audit policy of kube-apiserver.", show_default="none")
]
ComponentArg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COMPONENT=FLAG=VALUE",
        help="Additional argument of a component; can be repeated.",
        show_default="none",
    ),
]
Scheduler = Annotated[
    list[str] | None,
    typer.Option(
        "--scheduler",
        metavar="NAME=FILE",
        help="Also run a kube-scheduler for the VMs and pods with schedulerName NAME. FILE is its "
        "KubeSchedulerConfiguration, or most-allocated, which comes with vmsim. A running control plane gets it in "
        "addition, or restarts it if FILE has changed. Can be repeated.",
        show_default="none",
    ),
]
Assets = Annotated[
    Path | None,
    typer.Option(
        envvar="KUBEBUILDER_ASSETS",
        metavar="FOLDER",
        help="Folder of programs to use first; a program of another minor release is an error.",
        show_default="none",
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        envvar="VMSIM_CACHE_DIR",
        metavar="FOLDER",
        help="Folder in which obtained programs are kept.",
        show_default="$XDG_CACHE_HOME/vmsim or ~/.cache/vmsim, ~/Library/Caches/vmsim on macOS",
    ),
]
NoDownload = Annotated[bool, typer.Option("--no-download", "--offline", help="Do not download release files.")]
NoBuild = Annotated[bool, typer.Option("--no-build", help="Do not build programs with Go; fail if one is missing.")]
KubernetesBase = Annotated[
    str | None,
    typer.Option(
        envvar="VMSIM_DOWNLOAD_BASE_KUBERNETES",
        metavar="URL",
        help="Base URL of the Kubernetes releases.",
        show_default="https://dl.k8s.io",
    ),
]
EtcdBase = Annotated[
    str | None,
    typer.Option(
        envvar="VMSIM_DOWNLOAD_BASE_ETCD",
        metavar="URL",
        help="Base URL of the etcd releases, laid out as GitHub's.",
        show_default="https://github.com",
    ),
]
KwokBase = Annotated[
    str | None,
    typer.Option(
        envvar="VMSIM_DOWNLOAD_BASE_KWOK",
        metavar="URL",
        help="Base URL of the KWOK releases, laid out as GitHub's.",
        show_default="https://github.com",
    ),
]
KwokSums = Annotated[
    Path | None,
    typer.Option(
        envvar="VMSIM_KWOK_SHA256SUMS",
        metavar="FILE",
        help="SHA-256 digests of KWOK's release files, since the project publishes none; "
        "without them, KWOK is built and not downloaded.",
        show_default="none",
    ),
]


class Where(StrEnum):
    """The cluster of `vmsim run`: a local control plane, or the one that kubectl would use."""

    LOCAL = "local"
    CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Obtaining:
    """The flags about the control plane's programs; None or False for a flag that is not given."""

    assets: Path | None
    cache_dir: Path | None
    no_download: bool
    no_build: bool
    kubernetes_base: str | None
    etcd_base: str | None
    kwok_base: str | None
    kwok_sums: Path | None


@dataclass(frozen=True, slots=True)
class Plane:
    """The flags about the control plane; `wait` is in seconds."""

    state: Path
    nodes: int
    cpu: str
    memory: str
    pods: int
    wait: float
    audit_policy: Path | None
    component_args: tuple[str, ...]
    schedulers: tuple[str, ...]


def _needs_posix() -> None:
    """Exit with an error that names WSL on Windows, where a control plane cannot run."""
    if sys.platform == "win32":
        exits.fail(
            "a local control plane runs on Linux and macOS; on Windows run this command in WSL (`wsl --install`). "
            "All other commands work here"
        )


def up(
    *,
    state: State = STATE,
    nodes: Nodes = 3,
    cpu: Cpu = "32",
    memory: Memory = "256Gi",
    pods: Pods = 110,
    kubeconfig: NewKubeconfig = None,
    obtain_only: ObtainOnly = False,
    wait: Wait = 120.0,
    audit_policy: AuditPolicy = None,
    component_arg: ComponentArg = None,
    scheduler: Scheduler = None,
    assets: Assets = None,
    cache_dir: CacheDir = None,
    no_download: NoDownload = False,
    no_build: NoBuild = False,
    kubernetes_base: KubernetesBase = None,
    etcd_base: EtcdBase = None,
    kwok_base: KwokBase = None,
    kwok_sums: KwokSums = None,
) -> None:
    """Start a local control plane, repair it, or change its nodes.

    Runs a real Kubernetes API server, etcd, scheduler and controller manager on loopback, with fake nodes by KWOK and
    without Docker. Returns when all are ready.
    """
    _needs_posix()
    if obtain_only and kubeconfig is not None:
        raise typer.BadParameter("with --obtain-only there are no credentials to write", param_hint="--kubeconfig")
    from controller.cli import plane  # noqa: PLC0415 - as in moving.py

    obtaining = Obtaining(assets, cache_dir, no_download, no_build, kubernetes_base, etcd_base, kwok_base, kwok_sums)
    if obtain_only:
        plane.obtain_only(obtaining)
    else:
        repeated = tuple(component_arg or ()), tuple(scheduler or ())
        wanted = Plane(state, nodes, cpu, memory, pods, wait, audit_policy, *repeated)
        plane.up(wanted, obtaining, kubeconfig)


def down(*, state: State = STATE) -> None:
    """Stop the local control plane, and remove its data.

    Succeeds if there is none. Also ends the processes that a killed `vmsim run` left behind.
    """
    _needs_posix()
    from controller.cli import plane  # noqa: PLC0415

    plane.down(state)


def status(*, state: State = STATE) -> None:
    """Show whether the local control plane is alive.

    Prints one line per component; exit code 1 unless all are alive.
    """
    _needs_posix()
    from controller.cli import plane  # noqa: PLC0415

    plane.status(state)


def run(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the final table and exit once every VM runs.")] = False,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="How long --once waits for the VMs.")] = 60.0,
    nodes: Nodes = 3,
    cluster: Annotated[
        Where, typer.Option(help="local: start a control plane; current: use the cluster that kubectl would use.")
    ] = Where.LOCAL,
    state: State = STATE,
) -> None:
    """Start everything, show three VMs, stop everything.

    Starts a local control plane and the controller, and shows a live table of three example VMs. Ctrl-C stops what this
    command started; what was running before keeps running.
    """
    _needs_posix()
    from controller.cli import run  # noqa: PLC0415

    run.main(run.Request(once=once, deadline=deadline, nodes=nodes, current=cluster is Where.CURRENT, state=state))


@connecting(namespace="No effect: the definitions are cluster-scoped.", default="none")
def install(*, connection: Connection) -> None:
    """Install the CustomResourceDefinitions on a cluster.

    Applies the definitions of this release, also over those of another one. Returns when the API server serves both.
    """
    from controller.cli import install  # noqa: PLC0415

    install.run(connection)
