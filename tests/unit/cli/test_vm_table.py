"""The table of VMs of `vmsim run`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from controller.cli.text import age
from controller.cli.vm_table import not_running, table
from controller.domain.objects import VirtualMachine, VMStatus
from controller.kube.meta import Condition, ObjectMeta

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def vm(name: str, status: VMStatus) -> VirtualMachine:
    """Return a VM that is ten seconds old."""
    return VirtualMachine(
        metadata=ObjectMeta(name=name, namespace="default", creation_timestamp="2026-01-15T10:29:50Z"), status=status
    )


RUNS = vm(
    "runs",
    VMStatus(
        phase="Running",
        node_name="kwok-node-1",
        pod_name="virt-launcher-runs-abcde",
        cpu_consumption="0.05",
        memory_consumption="0.08",
    ),
)


def drawn(*vms: VirtualMachine, width: int = 120, caption: str = "") -> list[list[str]]:
    """Return the table's words, line by line."""
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(table(vms, caption=caption, now=NOW))
    return [line.split() for line in capture.get().splitlines() if line.strip()]


def test_a_row_has_kubectls_columns() -> None:
    """In the same order, with the same values."""
    assert drawn(RUNS) == [
        ["NAME", "PHASE", "NODE", "POD", "CPU", "MEMORY", "AGE"],
        ["runs", "Running", "kwok-node-1", "virt-launcher-runs-abcde", "0.05", "0.08", "10s"],
    ]


def test_rows_are_sorted_by_name() -> None:
    """The table is redrawn four times a second, so rows must keep their places."""
    assert [row[0] for row in drawn(vm("b", VMStatus()), RUNS, vm("a", VMStatus()))[1:]] == ["a", "b", "runs"]


@pytest.mark.parametrize("words", ["[fd00::a]:9090", "[/x]", "[red]x[/red]"])
def test_nothing_in_the_table_is_markup(words: str) -> None:
    """Neither a foreign status nor a path in the caption."""
    marked = vm("marked", VMStatus(node_name=words, pod_name=words, cpu_consumption=words, memory_consumption=words))
    lines = drawn(marked, caption=words)
    assert lines[1].count(words) == 4
    assert lines[2] == [words]


def test_a_narrow_terminal_has_one_line_per_vm() -> None:
    """Cells are truncated, not folded."""
    assert len(drawn(RUNS, width=60)) == 2


def test_a_narrow_terminal_truncates_the_pod_first() -> None:
    """Its name begins like its VM's; a truncated phase would be useless."""
    assert drawn(RUNS, width=64)[1] == ["runs", "Running", "kwok-node-1", "virt-launcher-ru…", "0.05", "0.08", "10s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (184, "3m4s"),
        (601, "10m"),
        (3 * 3600 + 300, "3h5m"),
        (9 * 3600, "9h"),
        (49 * 3600, "2d1h"),
        (-5, "0s"),
    ],
)
def test_an_age_is_printed_as_by_kubectl(seconds: float, text: str) -> None:
    """In apimachinery's steps; 0s for a time in the future."""
    created = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert age(created, NOW) == text


def test_a_vm_that_does_not_run_is_named_with_the_reason() -> None:
    """`make run ONCE=1` prints these lines after its deadline."""
    unschedulable = Condition(type="Ready", status="False", reason="Unschedulable", message="0/3 nodes are available")
    waits = vm("waits", VMStatus(phase="Scheduling", conditions=(unschedulable,)))
    assert not_running([RUNS, waits, vm("new", VMStatus())]) == [
        "default/new is Pending: no controller has written its status",
        "default/waits is Scheduling: Unschedulable: 0/3 nodes are available",
    ]
