"""The output of `vmsim migrate`, for any message of the cluster."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from controller.cli.interrupts import Presses
from controller.cli.migrate import Request, migrate
from controller.cli.session import Scope
from controller.domain.resources import MIGRATIONS
from controller.operations.errors import HandedOverError
from tests.model.staged import Staged, later, now
from tests.unit.observe.builders import move

MIGRATION = "vm-1-abcde"
HERE = Scope("default", "default")


async def drawn(cluster: Staged, words: str, *, terminal: bool, at: float = 1) -> str:
    """Return the output while a migration waits with this message, and then succeeds."""
    cluster.vm(phase="Running")
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=120, markup=False, highlight=False, no_color=True, soft_wrap=True
    )
    later(at, cluster.migration, MIGRATION, phase="Pending", message=words)
    later(30, cluster.migration, MIGRATION, phase="Succeeded", sourceNode="n1", targetNode="n2")
    await migrate(cluster, HERE, Request("vm-1", wait=True), console)
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
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
async def test_a_live_migration_shows_how_far_it_is(
    cluster: Staged, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    """It copies 1 byte a second: its figures hardly change. Where nothing replaces them, they come at intervals."""
    record = move(began=datetime.now(UTC) - timedelta(seconds=500), bandwidth=1.0).status.copying
    nodes = {"sourceNode": "n1", "targetNode": "n2"}
    later(0.5, cluster.migration, MIGRATION, phase="Running", copying=msgspec.to_builtins(record), **nodes)
    drew = await drawn(cluster, "a moment", terminal=terminal, at=0.2)
    figures = re.findall(r"50%: \d+ B processed, \d+ B remaining, ends in 8m", drew)
    assert figures if terminal else len(figures) == 3
    assert ("━" in drew) is terminal
    assert "the controller's defaults are assumed" in drew + capsys.readouterr().err


COMMAND = f"""kubectl patch vmm -n default {MIGRATION} --type=merge -p '{{"spec":{{"cancel":true}}}}'"""
STOPPED = f"\nThe migration goes on. Ctrl-C again within 3 s cancels it; later, this does:\n\n    {COMMAND}\n"


async def pressing(cluster: Staged, *at: float) -> tuple[int, str, float]:
    """Press Ctrl-C at these seconds of a wait; return the exit code, the output, and when the command ended."""
    cluster.vm(phase="Running")
    presses = Presses()
    for seconds in at:
        later(seconds, presses.press)
    file = io.StringIO()
    console = Console(file=file, width=120, markup=False)
    code = await migrate(cluster, HERE, Request("vm-1", wait=True), console, lambda: nullcontext(presses))
    return code, file.getvalue(), now()


def cancelled(cluster: Staged) -> bool:
    """Return whether the migration is asked to cancel."""
    return "cancel" in cluster.objects[MIGRATIONS.plural, f"default/{MIGRATION}"]["spec"]


def hand_over(cluster: Staged) -> None:
    """Let the migration hand the VM over, and be about to clean up."""
    uid = cluster.objects[MIGRATIONS.plural, f"default/{MIGRATION}"]["metadata"]["uid"]
    cluster.vm(phase="Running", nodeName="n2", lastHandOver={"uid": uid})


@pytest.mark.looptime
async def test_one_ctrl_c_stops_waiting_in_a_moment(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """The migration goes on."""
    code, _, ended = await pressing(cluster, 5)
    assert (code, ended) == (130, 8)
    assert capsys.readouterr().err == STOPPED
    assert not cancelled(cluster)


@pytest.mark.looptime
async def test_a_second_ctrl_c_cancels_the_migration(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """And waits until the controller has done so."""
    later(9, cluster.migration, MIGRATION, phase="Failed", failureReason="Cancelled", message="Before it began")
    code, out, ended = await pressing(cluster, 5, 7)
    assert (code, ended) == (130, 9)
    assert out.splitlines()[-1] == f"{MIGRATION}: Cancelled: Before it began"
    assert capsys.readouterr().err == STOPPED
    assert cancelled(cluster)


@pytest.mark.looptime
async def test_a_third_ctrl_c_ends_the_command_at_once(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """What came of the second is not known."""
    code, _, ended = await pressing(cluster, 5, 6, 7)
    assert (code, ended) == (130, 7)
    assert (
        capsys.readouterr().err == f"{STOPPED}\nWhether the migration is cancelled is not known: see vmsim migrations\n"
    )


@pytest.mark.looptime
async def test_a_second_ctrl_c_that_comes_after_the_hand_over_says_that_it_changes_nothing(cluster: Staged) -> None:
    """The migration succeeds."""
    later(5.5, hand_over, cluster)
    with pytest.raises(HandedOverError, match=f"{MIGRATION} has handed VM vm-1 over to n2 already"):
        await pressing(cluster, 5, 6)
    assert not cancelled(cluster)


@pytest.mark.looptime
async def test_a_migration_that_ends_after_the_first_ctrl_c_is_told_as_ever(cluster: Staged) -> None:
    """Its end comes within the moment."""
    later(6, cluster.migration, MIGRATION, phase="Succeeded", sourceNode="n1", targetNode="n2")
    code, out, ended = await pressing(cluster, 5)
    assert (code, out.splitlines()[-1], ended) == (0, "vm-1: n1 → n2", 6)


@pytest.mark.looptime
async def test_a_request_to_stop_while_waiting_prints_how_to_cancel(
    cluster: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed command works at every stage of a migration."""
    cluster.vm(phase="Running")
    task = asyncio.create_task(
        migrate(cluster, HERE, Request("vm-1", wait=True), Console(file=io.StringIO(), markup=False))
    )
    later(5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert capsys.readouterr().err == f"\nThe migration goes on. To cancel it:\n\n    {COMMAND}\n"


@pytest.mark.looptime
async def test_ctrl_c_during_the_create_reports_an_unknown_outcome(
    cluster: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request may have been carried out."""
    cluster.vm(phase="Running")
    cluster.failures["create virtualmachinemigrations"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await migrate(cluster, HERE, Request("vm-1"), Console(file=io.StringIO(), markup=False))
    assert capsys.readouterr().err == (
        "\nWhether the migration was created is not known: look at kubectl get vmm -n default before you ask again\n"
    )


@pytest.mark.looptime
async def test_ctrl_c_before_the_create_prints_nothing(cluster: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    """No migration can exist."""
    cluster.failures["get virtualmachines"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await migrate(cluster, HERE, Request("vm-1"), Console(file=io.StringIO(), markup=False))
    assert capsys.readouterr().err == ""
