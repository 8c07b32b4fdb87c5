"""The commands of `vmsim`, and the flags of `vmsim controller`.

Guarantees: `--help` shows the default of every flag and, if it has one, its environment variable; an expected error is
one line that says what to do, with exit code 1 (2 for an invalid flag), never a traceback. That includes output that
cannot be written (controller/cli/output.py) and Ctrl-C during the imports (controller/cli/entry.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from controller import __version__
from controller.cli import flags, local, moving, output, scenarios
from controller.cli.connection import Connection, connecting
from controller.cli.exits import FAILED
from controller.domain.migration.limits import Limits
from controller.domain.names import BOOT_TIME, CONTROLLER_CLASS
from controller.domain.objects import Strategy
from controller.domain.ratio import DEFAULT_CPU, DEFAULT_MEMORY
from controller.domain.settings import selector_text, tolerations_text
from controller.domain.vm.policy import FAKE_NODES, FAKE_TAINT, LauncherPolicy
from controller.telemetry.logs import LogFormat, LogLevel

PLUGIN = "kubectl vmsim"
_BAD_ARGUMENT: Final = 2

app = typer.Typer(
    name="vmsim",
    help="Simulated virtual machines on Kubernetes: rehearse scheduling, migration and rebalancing without hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's boxes cut the names of environment variables short at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.run(lambda: _run(words, program(sys.argv[0])))


def _run(words: list[str], name: str) -> None:
    if name == PLUGIN and not {"--install-completion", "--show-completion"}.isdisjoint(words):
        typer.echo("kubectl completes its plugins by itself: see kubectl completion --help")
        return
    for word in words:
        if not _is_text(word):
            typer.echo(f"error: {word!r} is not valid UTF-8", err=True)
            raise SystemExit(_BAD_ARGUMENT)
    app(words, prog_name=name)


def _is_text(word: str) -> bool:
    """Whether an argument was valid UTF-8: Python represents other bytes as lone surrogates, which cannot be sent."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def complete_for_kubectl() -> NoReturn:
    """Print completions of the last argument in cobra's format, which kubectl reads from `kubectl_complete-vmsim`."""
    words = ["vmsim", *sys.argv[1:]]
    os.environ |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_VMSIM_COMPLETE": "complete_bash"}
    output.run(_complete)


def _complete() -> None:
    try:
        app([], prog_name="vmsim")
    finally:
        typer.echo(":4")  # cobra's ShellCompDirectiveNoFileComp: do not complete file names


def program(path: str) -> str:
    """Return the command that the user typed to start the program at this path; kubectl finds plugins by file name."""
    return PLUGIN if Path(path).stem == "kubectl-vmsim" else "vmsim"


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if wanted:
        typer.echo(f"vmsim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


app.command()(local.up)
app.command()(local.down)
app.command()(local.status)
app.command()(local.run)
app.command()(local.install)
app.command()(moving.migrate)
app.command()(moving.migrations)
app.command()(moving.drain)
app.command(cls=scenarios.LoadCommand)(scenarios.load)
app.command()(scenarios.unload)


@app.command()
@connecting(
    namespace="Namespace to watch, as with --namespaces; by default also the namespace of the lease.", default="all"
)
def controller(
    *,
    connection: Connection,
    namespaces: Annotated[
        str,
        typer.Option(envvar="VMSIM_NAMESPACES", metavar="A,B", help="Namespaces to watch.", show_default="all"),
    ] = "",
    controller_class: Annotated[
        str,
        typer.Option(
            envvar="VMSIM_CONTROLLER_CLASS",
            metavar="NAME",
            help=f"Reconcile only VMs whose label {CONTROLLER_CLASS} has this value.",
            show_default="VMs without the label",
        ),
    ] = "",
    selector: Annotated[
        str,
        typer.Option(
            "--selector",
            "-l",
            envvar="VMSIM_SELECTOR",
            metavar="LABELS",
            help="Reconcile only VMs that match this label selector, written as for kubectl get -l.",
            show_default="all",
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(envvar="VMSIM_WORKERS", metavar="N", min=1, max=256, help="VMs reconciled at the same time.")
    ] = 16,
    metrics_bind_address: Annotated[
        str,
        typer.Option(
            envvar="VMSIM_METRICS_BIND_ADDRESS",
            metavar="HOST:PORT",
            help="Address of /metrics, /healthz and /readyz. Port 0: a free port, which is logged.",
        ),
    ] = "127.0.0.1:8080",
    metrics_cert_file: Annotated[
        str | None,
        typer.Option(
            envvar="VMSIM_METRICS_CERT_FILE",
            metavar="FILE",
            help="Certificate chain for TLS on that address, probes included. Reloaded when the file changes.",
            show_default="no TLS",
        ),
    ] = None,
    metrics_key_file: Annotated[
        str | None,
        typer.Option(
            envvar="VMSIM_METRICS_KEY_FILE",
            metavar="FILE",
            help="Private key of that certificate.",
            show_default="no TLS",
        ),
    ] = None,
    metrics_auth: Annotated[
        bool,
        typer.Option(
            "--metrics-auth/--no-metrics-auth",
            envvar="VMSIM_METRICS_AUTH",
            help="Require a bearer token for /metrics, whose user the API server authorizes to get the path /metrics.",
        ),
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="VMSIM_LOG_FORMAT", help="auto: console on a terminal, JSON lines elsewhere."),
    ] = LogFormat.AUTO,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="VMSIM_LOG_LEVEL", help="Lowest level that is logged.")
    ] = LogLevel.INFO,
    reference_cpu: Annotated[
        str,
        typer.Option(envvar="VMSIM_REFERENCE_CPU", metavar="QUANTITY", help="CPU that the ratio 1.0 stands for."),
    ] = DEFAULT_CPU,
    reference_memory: Annotated[
        str,
        typer.Option(envvar="VMSIM_REFERENCE_MEMORY", metavar="QUANTITY", help="Memory that the ratio 1.0 stands for."),
    ] = DEFAULT_MEMORY,
    events: Annotated[
        bool, typer.Option("--events/--no-events", envvar="VMSIM_EVENTS", help="Write Kubernetes Events about VMs.")
    ] = True,
    leader_elect: Annotated[
        bool,
        typer.Option(
            "--leader-elect/--no-leader-elect",
            envvar="VMSIM_LEADER_ELECT",
            help="Reconcile only while holding the lease, so that several replicas can run; the others stand by.",
        ),
    ] = True,
    leader_elect_namespace: Annotated[
        str | None,
        typer.Option(
            envvar="VMSIM_LEADER_ELECT_NAMESPACE",
            metavar="NAME",
            help="Namespace of the lease, and of the ConfigMap with the settings that tools read.",
            show_default="the pod's, or the kubeconfig's",
        ),
    ] = None,
    vm_metrics: Annotated[
        bool,
        typer.Option(
            "--vm-metrics/--no-vm-metrics",
            envvar="VMSIM_VM_METRICS",
            help="Expose series of each VM and migration. Without them, the number of series depends on the nodes.",
        ),
    ] = True,
    parallel_migrations_per_cluster: Annotated[
        int,
        typer.Option(
            envvar="VMSIM_PARALLEL_MIGRATIONS_PER_CLUSTER",
            metavar="N",
            min=0,
            help="Migrations in progress at the same time, at most. 0: no limit.",
        ),
    ] = 5,
    parallel_outbound_migrations_per_node: Annotated[
        int,
        typer.Option(
            envvar="VMSIM_PARALLEL_OUTBOUND_MIGRATIONS_PER_NODE",
            metavar="N",
            min=0,
            help="Migrations away from one node at the same time, at most. 0: no limit.",
        ),
    ] = 2,
    node_selector: Annotated[
        str,
        typer.Option(
            envvar="VMSIM_NODE_SELECTOR",
            metavar="KEY=VALUE,…",
            help="Node selector of the VMs' pods; the default allows fake nodes only. Empty: any node.",
        ),
    ] = selector_text(FAKE_NODES),
    tolerations: Annotated[
        str,
        typer.Option(
            envvar="VMSIM_TOLERATIONS",
            metavar="KEY[=VALUE][:EFFECT],…",
            help="Taints that the VMs' pods tolerate, written as for kubectl taint.",
        ),
    ] = tolerations_text((FAKE_TAINT,)),
    boot_time: Annotated[
        str,
        typer.Option(
            envvar="VMSIM_BOOT_TIME",
            metavar="DURATION",
            help=f"How long a VM boots before it is Running, such as 90s; its annotation {BOOT_TIME} goes before it.",
        ),
    ] = "0s",
    migration_strategy: Annotated[
        Strategy,
        typer.Option(
            envvar="VMSIM_MIGRATION_STRATEGY",
            help="How a migration that names no strategy moves its VM: Live needs capacity for a second pod.",
        ),
    ] = Strategy.RECREATE,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
    # Imported here, since the API client takes most of a second to load and --help needs none of it.
    from controller import process  # noqa: PLC0415
    from controller.app import Settings  # noqa: PLC0415
    from controller.cli import target  # noqa: PLC0415
    from controller.manager import Options  # noqa: PLC0415
    from controller.serving import tls  # noqa: PLC0415
    from controller.telemetry import logs  # noqa: PLC0415

    logs.configure(log_format, log_level)
    certificate = flags.certificate_files(metrics_cert_file, metrics_key_file)
    settings = Settings(
        kubeconfig=target.find(connection, logs.write_line),
        namespaces=flags.watched(namespaces, connection.namespace),
        controller_class=flags.controller_class(controller_class),
        selector=flags.label_selector(selector),
        bind_address=flags.address(metrics_bind_address),
        certificate=tls.Files(*certificate) if certificate is not None else None,
        metrics_auth=metrics_auth,
        vm_metrics=vm_metrics,
        leader_election=leader_elect,
        home=leader_elect_namespace,
        controllers=Options(
            policy=LauncherPolicy(
                reference=flags.reference(reference_cpu, reference_memory),
                node_selector=flags.node_selector(node_selector),
                tolerations=flags.tolerations(tolerations),
                boot_time=flags.boot_time(boot_time),
            ),
            strategy=migration_strategy,
            limits=Limits(cluster=parallel_migrations_per_cluster, outbound=parallel_outbound_migrations_per_node),
            workers=workers,
            events=events,
        ),
        choice=connection.choice,
        request_timeout=connection.request_timeout,
    )
    problem = process.run_until_signal(settings)
    if problem is not None:
        # Through the log's sink: after the last log lines, and without blocking on a slow reader.
        logs.write_line(f"error: {problem}")
        raise typer.Exit(FAILED)
