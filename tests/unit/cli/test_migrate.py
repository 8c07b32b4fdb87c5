"""The output of `vmsim migrate`, for any message of the cluster."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from controller.cli.migrate import Request, migrate
from tests.model.staged import Staged, later

MIGRATION = "vm-1-abcde"


async def drawn(cluster: Staged, words: str, *, terminal: bool) -> str:
    """Return the output while a migration waits with this message, and then succeeds."""
    cluster.vm(phase="Running")
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=120, markup=False, highlight=False, no_color=True, soft_wrap=True
    )
    later(1, cluster.migration, MIGRATION, phase="Pending", message=words)
    later(30, cluster.migration, MIGRATION, phase="Succeeded", sourceNode="n1", targetNode="n2")
    await migrate(cluster, "default", Request("vm-1", wait=True), console)
    return file.getvalue()


@pytest.mark.looptime
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    "words", ["dial tcp [fd00:10:96::a]:443: i/o timeout", "no [/x] here", "[red]x[/red]", "[", r"\[bold]"]
)
async def test_a_message_of_the_cluster_is_printed_unchanged(cluster: Staged, words: str, *, terminal: bool) -> None:
    """Parsed as markup, it would lose text, or end the command."""
    assert f"Pending: {words}" in await drawn(cluster, words, terminal=terminal)


@pytest.mark.looptime
async def test_ctrl_c_while_waiting_prints_how_to_cancel(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed command works at every stage of a migration."""
    cluster.vm(phase="Running")
    task = asyncio.create_task(
        migrate(cluster, "default", Request("vm-1", wait=True), Console(file=io.StringIO(), markup=False))
    )
    later(5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    command = f"""kubectl patch vmm -n default {MIGRATION} --type=merge -p '{{"spec":{{"cancel":true}}}}'"""
    assert capsys.readouterr().err == f"\nThe migration goes on. To cancel it:\n\n    {command}\n"


@pytest.mark.looptime
async def test_ctrl_c_during_the_create_reports_an_unknown_outcome(
    cluster: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request may have been carried out."""
    cluster.vm(phase="Running")
    cluster.failures["create virtualmachinemigrations"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await migrate(cluster, "default", Request("vm-1"), Console(file=io.StringIO(), markup=False))
    assert capsys.readouterr().err == (
        "\nWhether the migration was created is not known: look at kubectl get vmm -n default before you ask again\n"
    )


@pytest.mark.looptime
async def test_ctrl_c_before_the_create_prints_nothing(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """No migration can exist."""
    cluster.failures["get virtualmachines"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await migrate(cluster, "default", Request("vm-1"), Console(file=io.StringIO(), markup=False))
    assert capsys.readouterr().err == ""
