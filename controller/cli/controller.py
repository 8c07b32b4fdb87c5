"""`vmsim controller`: its flags, and the settings that it starts with.

Guarantees: every value is checked before a connection is made. The API client is imported when the command runs, since
it takes most of a second to load and --help needs none of it.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from controller.cli import flags, live_flags
from controller.cli.connection import Connection, connecting
from controller.cli.exits import FAILED
from controller.cli.parameters import replacing
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.migration.limits import Limits
from controller.domain.names import BOOT_TIME, CONTROLLER_CLASS
from controller.domain.objects import Strategy
from controller.domain.ratio import DEFAULT_CPU, DEFAULT_MEMORY
from controller.domain.settings import selector_text, tolerations_text
from controller.domain.vm.policy import FAKE_NODES, FAKE_TAINT, LauncherPolicy
from controller.telemetry.logs import LogFormat, LogLevel

_VMS: Final = "Virtual machines"
_MIGRATIONS: Final = "Migrations"


@connecting(
    namespace="Namespace to watch, as with --namespaces; by default also the namespace of the lease.", default="all"
)
@replacing("live", live_flags.FLAGS, live_flags.policy)
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
    reference_cpu: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_REFERENCE_CPU",
            metavar="QUANTITY",
            help="CPU that the ratio 1.0 stands for.",
        ),
    ] = DEFAULT_CPU,
    reference_memory: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_REFERENCE_MEMORY",
            metavar="QUANTITY",
            help="Memory that the ratio 1.0 stands for.",
        ),
    ] = DEFAULT_MEMORY,
    node_selector: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_NODE_SELECTOR",
            metavar="KEY=VALUE,…",
            help="Node selector of the VMs' pods; the default allows fake nodes only. Empty: any node.",
        ),
    ] = selector_text(FAKE_NODES),
    tolerations: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_TOLERATIONS",
            metavar="KEY[=VALUE][:EFFECT],…",
            help="Taints that the VMs' pods tolerate, written as for kubectl taint.",
        ),
    ] = tolerations_text((FAKE_TAINT,)),
    boot_time: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_BOOT_TIME",
            metavar="DURATION",
            help=f"How long a VM boots before it is Running, such as 90s; its annotation {BOOT_TIME} goes before it.",
        ),
    ] = "0s",
    speed: Annotated[
        str,
        typer.Option(
            rich_help_panel=_VMS,
            envvar="VMSIM_SPEED",
            metavar="FACTOR",
            help="Simulated seconds in a real one, from 0.01 to 100000: boots, copying and scenarios pass so fast.",
        ),
    ] = "1",
    migration_strategy: Annotated[
        Strategy,
        typer.Option(
            rich_help_panel=_MIGRATIONS,
            envvar="VMSIM_MIGRATION_STRATEGY",
            help="How a migration that names no strategy moves its VM: Live needs capacity for a second pod.",
        ),
    ] = Strategy.RECREATE,
    parallel_migrations_per_cluster: Annotated[
        int,
        typer.Option(
            rich_help_panel=_MIGRATIONS,
            envvar="VMSIM_PARALLEL_MIGRATIONS_PER_CLUSTER",
            metavar="N",
            min=0,
            help="Migrations in progress at the same time, at most. 0: no limit.",
        ),
    ] = 5,
    parallel_outbound_migrations_per_node: Annotated[
        int,
        typer.Option(
            rich_help_panel=_MIGRATIONS,
            envvar="VMSIM_PARALLEL_OUTBOUND_MIGRATIONS_PER_NODE",
            metavar="N",
            min=0,
            help="Migrations away from one node at the same time, at most. 0: no limit.",
        ),
    ] = 2,
    live: CopyingPolicy,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
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
                speed=flags.speed(speed),
            ),
            strategy=migration_strategy,
            live=live,
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
