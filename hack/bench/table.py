"""The tables that a run prints: each measure by contestant, then the verdicts."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hack.bench import contestants
from hack.bench.figures import Results
from hack.bench.verdicts import Verdict, growth_sizes, text

_ROWS: Final[dict[str, dict[str, str]]] = {
    "burst": {
        "per_second": "VM/s",
        "half_run_in": "half of them run in, s",
        "cpu_ms": "controller CPU a VM, ms",
        "plane_cpu_ms": "control plane's CPU a VM, ms",
        "pod_posts": "pod POSTs a VM",
        "status_writes": "status writes a VM",
        "event_writes": "Event writes a VM",
        "other_writes": "other writes a VM",
        "rss_mib": "memory, MiB",
    },
    "cold": {"ready": "ready, s", "settled": "all reconciled, s", "cpu": "CPU, s", "writes": "writes"},
    "idle": {"writes": "writes", "cpu_percent": "CPU, % of a core", "rss_mib": "memory, MiB"},
    "latency": {
        "p50_ms": "p50, ms",
        "p99_ms": "p99, ms",
        "max_ms": "longest, ms",
        "cpu_ms": "CPU a change, ms",
        "writes": "writes a change",
    },
    "change": {"p50_ms": "p50, ms", "max_ms": "longest, ms"},
    "migrations": {
        "per_second": "migrations/s",
        "downtime_p50": "downtime p50, s",
        "downtime_p95": "downtime p95, s",
        "cpu_ms": "controller CPU each, ms",
        "vm_writes": "VM status writes each",
        "migration_writes": "its own status writes each",
    },
    "live": {
        "per_second": "live migrations/s",
        "cpu_ms": "controller CPU each, ms",
        "vm_writes": "VM status writes each",
        "migration_writes": "its own status writes each",
    },
}
_GROWTH: Final = {"cpu_ms": "controller CPU a VM, ms", "per_second": "VM/s", "cold_rss_mib": "memory at the start, MiB"}


def draw(results: Results, verdicts: list[Verdict]) -> RenderableType:
    """Return the tables of all results."""
    growth = {f"growth {size}": _GROWTH for size in growth_sizes(results)}
    tables = [_measure(results, measure, rows) for measure, rows in {**_ROWS, **growth}.items()]
    failures = [Text(f"failed: {failure}", style="bold red") for failure in results.failures]
    return Group(*(table for table in tables if table is not None), _verdicts(verdicts), *failures)


def _measure(results: Results, measure: str, rows: dict[str, str]) -> Table | None:
    samples = [sample for sample in results.samples if sample.measure == measure]
    if not samples:
        return None
    measured = [one for one in contestants.ALL if any(sample.contestant == one.name for sample in samples)]
    rounds = 1 + max(sample.round for sample in samples)
    table = Table(title=f"{measure}: median (least to greatest) of {rounds} round{'s' if rounds > 1 else ''}")
    table.add_column("")
    for one in measured:
        table.add_column(one.name, justify="right")
    for key, label in rows.items():
        spreads = [results.spread(measure, one.name, key) for one in measured]
        table.add_row(label, *("-" if spread is None else text(spread) for spread in spreads))
    return table


def _verdicts(verdicts: list[Verdict]) -> Table:
    table = Table(title="vmsim: ratios taken within a round, and the targets")
    for title in ("", "found", "target", ""):
        table.add_column(title)
    labels = {True: "met", False: "MISSED", None: ""}
    for one in verdicts:
        table.add_row(one.what, one.found, one.target, labels[one.met], style="red" if one.met is False else "")
    return table
