"""What `vmsim migrate --wait` draws and says, whatever the words are that it was given."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from controller.cli.migrate import Request, migrate
from tests.model.staged import Staged, later

MIGRATION = "vm-1-abcde"


async def drawn(cluster: Staged, words: str, *, terminal: bool) -> str:
    """Return all that is drawn while a migration waits with these words, and then succeeds."""
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
async def test_the_clusters_words_are_drawn_as_they_are(cluster: Staged, words: str, *, terminal: bool) -> None:
    """Nothing in them is markup, which would be taken out, or end the command."""
    assert f"Pending: {words}" in await drawn(cluster, words, terminal=terminal)


@pytest.mark.looptime
async def test_a_wait_that_is_given_up_says_how_to_cancel(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """Which works at every point of a migration's way: nothing is said of how far it may be."""
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
async def test_ctrl_c_while_it_is_asked_for_says_what_is_not_known(
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
async def test_ctrl_c_before_it_is_asked_for_says_nothing(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to look for."""
    cluster.failures["get virtualmachines"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await migrate(cluster, "default", Request("vm-1"), Console(file=io.StringIO(), markup=False))
    assert capsys.readouterr().err == ""
