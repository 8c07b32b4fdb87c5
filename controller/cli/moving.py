"""The flags of `vmsim migrate`, `vmsim migrations` and `vmsim drain`; the modules of these names carry them out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from controller.cli import flags
from controller.cli.connection import Connection, connecting
from controller.domain.objects import Strategy

# Each command imports its module when it runs: the API client takes most of a second to load, and neither --help nor
# the shell's completion needs it.

Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0, help="Stop waiting after this time, with exit code 1.", show_default="no timeout"
    ),
]


Way = Annotated[
    Strategy | None,
    typer.Option(
        "--strategy",
        help="How a VM moves: Recreate deletes its pod, then creates the next; Live creates it beside, and hands over.",
        show_default="the controller's --migration-strategy",
    ),
]


class Priority(StrEnum):
    """The priority of a migration when the limits make migrations wait."""

    SYSTEM_CRITICAL = "system-critical"
    USER_TRIGGERED = "user-triggered"
    SYSTEM_MAINTENANCE = "system-maintenance"


@connecting()
def migrate(
    *,
    vm: Annotated[str, typer.Argument(metavar="VM", help="VM to move.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(metavar="NODE", help="Node to move to.", show_default="any other node, by the scheduler"),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Reason, of at most 128 characters.", show_default="none"),
    ] = None,
    priority: Annotated[
        Priority | None,
        typer.Option(help="Priority when the limits make migrations wait.", show_default=Priority.USER_TRIGGERED.value),
    ] = None,
    strategy: Way = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the migration ends.")] = False,
    timeout: Timeout = None,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="Create no migration, but cancel the VM's, unless it has handed over the VM."),
    ] = False,
    connection: Connection,
) -> None:
    """Move a VM to another node.

    Creates a migration and prints its name; with --wait, also shows its progress. Ctrl-C then stops waiting; a second
    one cancels the migration.
    """
    if cancel and (wait or any(given is not None for given in (to, reason, priority, strategy, timeout))):
        raise typer.BadParameter("takes no other flag: it creates no migration", param_hint="--cancel")
    if timeout is not None and not wait:
        raise typer.BadParameter("needs --wait: without it, the command does not wait", param_hint="--timeout")
    from controller.cli import migrate  # noqa: PLC0415

    if cancel:
        migrate.cancel(connection, vm)
        return
    wanted = priority or Priority.USER_TRIGGERED
    migrate.run(
        connection,
        migrate.Request(
            vm=vm, to=to, reason=reason, priority=wanted.value, strategy=strategy, wait=wait, timeout=timeout
        ),
    )


@connecting()
def migrations(
    *,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Across all namespaces.")] = False,
    connection: Connection,
) -> None:
    """List migrations, with the reason why each waits or failed."""
    if connection.namespace is not None and all_namespaces:
        raise typer.BadParameter("cannot be combined with --namespace", param_hint="--all-namespaces")
    from controller.cli import migrations  # noqa: PLC0415

    migrations.run(connection, everywhere=all_namespaces)


class Output(StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"


@connecting(namespace="No effect, as with kubectl drain: VMs of all namespaces are moved.", default="none")
def drain(
    *,
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="NODE", help="Nodes to drain.", show_default=False)
    ] = None,
    selector: Annotated[
        str,
        typer.Option(
            "--selector",
            "-l",
            metavar="LABELS",
            help="Drain the nodes with these labels, written as for kubectl get -l, instead of named ones.",
            show_default="none",
        ),
    ] = "",
    parallel_nodes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Nodes drained at the same time; all nodes are cordoned before the first drain."
        ),
    ] = 1,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, of at most 128 characters.")] = "Drain",
    priority: Annotated[
        Priority, typer.Option(help="Priority when the limits make migrations wait.")
    ] = Priority.SYSTEM_CRITICAL,
    strategy: Way = None,
    timeout: Timeout = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Change nothing; print which VMs would leave, where each could go, when each node would be empty, and "
            "what blocks it. Exit code 0: it can be done, 1: it cannot, 3: no answer.",
        ),
    ] = False,
    within: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="With --plan: the time for the whole drain, such as 4h; if it takes longer, the exit code is 1.",
            show_default="any time",
        ),
    ] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="With --plan: how it is printed.")] = Output.TABLE,
    connection: Connection,
) -> None:
    """Cordon nodes, and move every VM off them; or, with --plan, only say how that would go.

    Drains one node after the other, or --parallel-nodes at a time. The nodes stay cordoned.
    """
    label_selector = flags.label_selector(selector)
    if bool(nodes) == bool(label_selector):
        wanted = "name nodes, or give --selector" if not nodes else "cannot be combined with the names of nodes"
        raise typer.BadParameter(wanted, param_hint="--selector" if nodes else "NODE")
    if not plan and (within or output is not Output.TABLE):
        raise typer.BadParameter("needs --plan", param_hint="--within" if within else "--output")
    if plan and timeout is not None:
        raise typer.BadParameter("cannot be combined with --plan: see --within", param_hint="--timeout")
    longest = flags.within(within)
    from controller.operations.draining.order import Order  # noqa: PLC0415

    order = Order(
        nodes=tuple(nodes or ()),
        reason=reason,
        timeout=timeout,
        parallel_nodes=parallel_nodes,
        priority=priority.value,
        strategy=strategy,
    )
    if plan:
        from controller.cli import drain_plan  # noqa: PLC0415

        as_json = output is Output.JSON
        drain_plan.run(connection, drain_plan.Request(order, label_selector, longest, as_json))
        return
    from controller.cli import drain  # noqa: PLC0415

    drain.run(connection, order, label_selector)
