"""A drill's report: computed, written, read again, and drawn as table and chart."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from controller.observe.history import ClusterState, MigrationSeen
from hack.drills import chart
from hack.drills.report import Migrations, Report, RoundReport, Spread
from hack.drills.table import table

ROUND = RoundReport(
    label="2 nodes are drained in turn",
    began=3.0,
    ended=9.5,
    migrations=Migrations(asked=5, succeeded=2, failed=2, rolled_back=1, unfinished=1, failures={"RolledBack": 1}),
    moves=2,
    downtimes=[0.25, 0.5],
    longest_without_pod=4.25,
    longest_without_pod_vm="vm-3",
    spread_before=Spread(1, 2),
    spread_after=Spread(0, 3),
    most_on_a_node=3,
)
PASSED = Report(
    drill="rolling-drain",
    seed=7,
    vms=3,
    nodes=2,
    started="2026-01-15T10:30:00+00:00",
    seconds=11.0,
    events=42,
    rounds=[ROUND],
    loads={"n1": [(0.0, 0), (1.0, 2)], "n2": [(0.0, 1), (4.0, 0)]},
    double_lives=[],
    not_running=[],
    complaints=[],
    remarks=[],
)


def drawn(report: Report) -> str:
    """Return the table as text."""
    console = Console(width=120, record=True, quiet=False, file=None)
    with console.capture() as capture:
        console.print(table(report))
    return capture.get()


def row(text: str, label: str) -> str:
    """Return the cell of a row."""
    line = next(line for line in text.splitlines() if label in line)
    return line.split("│")[2].strip()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """As JSON."""
    path = tmp_path / "report.json"
    PASSED.write(path)
    assert Report.read(path) == PASSED
    assert path.read_text().endswith("}\n")


def test_the_table_shows_the_figures() -> None:
    """Each one in its row, and the verdict below."""
    text = drawn(PASSED)
    assert "rolling-drain: 3 VMs on 2 nodes, seed 7" in text
    assert row(text, "requested migrations") == "5"
    assert row(text, "succeeded") == "2"
    assert row(text, "failed") == "2 (1 RolledBack)"
    assert row(text, "rolled back") == "1"
    assert row(text, "median") == "0.25 s"
    assert row(text, "p95") == "0.50 s"
    assert row(text, "longest without a Running pod") == "4.25 s (vm-3)"
    assert row(text, "min / max, before") == "1 / 2"
    assert row(text, "min / max, after") == "0 / 3"
    assert "PASSED" in text


@pytest.mark.parametrize("field", ["double_lives", "not_running", "complaints"])
def test_any_problem_fails_the_drill(field: str) -> None:
    """The table shows the problem."""
    report = msgspec.structs.replace(PASSED, **{field: ["VM vm-1 is in trouble"]})
    assert report.problems == ["VM vm-1 is in trouble"]
    assert "FAILED: 1 problem" in drawn(report)
    assert "VM vm-1 is in trouble" in drawn(report)


def test_a_remark_does_not_fail_the_drill() -> None:
    """The controller's own status is shown, but not judged."""
    report = msgspec.structs.replace(PASSED, remarks=["VM vm-1 is Pending by its status"])
    assert report.problems == []
    assert "remark: VM vm-1 is Pending by its status" in drawn(report)


def test_the_table_names_the_strategy_of_the_migrations() -> None:
    """Under Live a VM has two live pods while it moves, and the verdict does not deny it."""
    text = drawn(msgspec.structs.replace(PASSED, strategy="Live"))
    assert "rolling-drain, Live: 3 VMs" in text
    assert "never with two live pods but the ends of its move (42 events" in text


def test_no_downtime_is_shown_as_a_dash() -> None:
    """A drill without moves has no downtime."""
    still = msgspec.structs.replace(ROUND, downtimes=[], longest_without_pod=0.0, longest_without_pod_vm="")
    text = drawn(msgspec.structs.replace(PASSED, rounds=[still]))
    assert row(text, "median") == row(text, "longest without a Running pod") == "-"


def test_migrations_are_counted_by_their_outcome() -> None:
    """Each requested one once; records of evictions separately."""
    state = ClusterState()
    for event in (
        MigrationSeen(1, "1", "m1", "vm-1", "Succeeded"),
        MigrationSeen(1, "2", "m2", "vm-2", "Failed", "RolledBack"),
        MigrationSeen(1, "3", "m3", "vm-3", "Failed", "NoRoom"),
        MigrationSeen(1, "4", "m4", "vm-4"),
        MigrationSeen(1, "5", "m5", "vm-5", "Succeeded", record=True),
    ):
        state.apply(event)
    assert Migrations.of(state, ["1", "2", "3", "4", "never seen"]) == Migrations(
        asked=5,
        succeeded=1,
        failed=2,
        rolled_back=1,
        unfinished=2,
        recorded=1,
        failures={"NoRoom": 1, "RolledBack": 1},
    )


@pytest.mark.parametrize("reason", ["[fd00::a]", "[/x]", "[red]"])
def test_a_reason_is_not_parsed_as_markup(reason: str) -> None:
    """It comes from the cluster."""
    failed = msgspec.structs.replace(ROUND, migrations=Migrations(asked=1, failed=1, failures={reason: 1}))
    assert row(drawn(msgspec.structs.replace(PASSED, rounds=[failed])), "  failed") == f"1 (1 {reason})"


@pytest.mark.parametrize("rounds", [[ROUND, ROUND], []])
def test_the_chart_is_a_png(tmp_path: Path, rounds: list[RoundReport]) -> None:
    """Also without downtimes."""
    path = tmp_path / "chart.png"
    chart.write(msgspec.structs.replace(PASSED, rounds=rounds), path)
    signature, _, kind, width, height = struct.unpack(">8sI4sII", path.read_bytes()[:24])
    assert (signature, kind) == (b"\x89PNG\r\n\x1a\n", b"IHDR")
    assert width > height > 400
