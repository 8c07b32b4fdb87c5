"""The table that a drill prints: one column per round, followed by the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.domain.objects import Strategy
from controller.observe.judge import percentile
from hack.drills.report import Report, RoundReport, Spread

_NAMED: Final = 10
_P95: Final = 0.95


def table(report: Report) -> RenderableType:
    """Draw a report."""
    how = f", {report.strategy}" if report.strategy else ""
    title = f"{report.drill}{how}: {report.vms} VMs on {report.nodes} nodes, seed {report.seed}"
    drawn = Table(title=title, min_width=60)
    drawn.add_column("", no_wrap=True)
    for part in report.rounds:
        drawn.add_column(part.label, justify="right")
    for label, cell in _ROWS:
        drawn.add_row(label, *(Text(cell(part)) for part in report.rounds))  # reasons come from the cluster
    return Group(drawn, *_verdict(report))


def _verdict(report: Report) -> list[Text]:
    if not report.problems:
        pods = "two live pods" if report.strategy != Strategy.LIVE else "two live pods but the ends of its move"
        text = f"PASSED: every VM ended Running, never with {pods} ({report.events} events, {report.seconds:.1f} s)"
        lines = [Text(text, style="bold green")]
    else:
        count = len(report.problems)
        lines = [Text(f"FAILED: {count} problem{'s' if count > 1 else ''}", style="bold red")]
        lines += [Text(f"  {problem}") for problem in report.problems[:_NAMED]]
        if len(report.problems) > _NAMED:
            lines.append(Text(f"  and {len(report.problems) - _NAMED} more: see the report"))
    return [*lines, *(Text(f"remark: {remark}", style="yellow") for remark in report.remarks[:_NAMED])]


def _downtime(share: float) -> Callable[[RoundReport], str]:
    return lambda part: f"{percentile(part.downtimes, share):.2f} s" if part.downtimes else "-"


def _failed(part: RoundReport) -> str:
    reasons = ", ".join(f"{count} {reason or 'no reason'}" for reason, count in part.migrations.failures.items())
    return f"{part.migrations.failed} ({reasons})" if reasons else str(part.migrations.failed)


def _longest(part: RoundReport) -> str:
    if not part.longest_without_pod_vm:
        return "-"
    return f"{part.longest_without_pod:.2f} s ({part.longest_without_pod_vm})"


def _spread(spread: Spread) -> str:
    return f"{spread.least} / {spread.most}"


_ROWS: Final[tuple[tuple[str, Callable[[RoundReport], str]], ...]] = (
    ("round took", lambda part: f"{part.ended - part.began:.1f} s"),
    ("requested migrations", lambda part: str(part.migrations.asked)),
    ("  succeeded", lambda part: str(part.migrations.succeeded)),
    ("  failed", _failed),
    ("  of these rolled back", lambda part: str(part.migrations.rolled_back)),
    ("  unfinished", lambda part: str(part.migrations.unfinished)),
    ("evictions recorded so far", lambda part: str(part.migrations.recorded)),
    ("moves seen by the pod watch", lambda part: str(part.moves)),
    ("downtimes", lambda part: str(len(part.downtimes))),
    ("  min", _downtime(0.0)),
    ("  median", _downtime(0.5)),
    ("  p95", _downtime(_P95)),
    ("  max", _downtime(1.0)),
    ("longest without a Running pod", _longest),
    ("most VMs down at once", lambda part: str(part.most_down_at_once)),
    ("  of one node", lambda part: str(part.most_down_at_once_of_a_node)),
    ("VMs per node, min / max, before", lambda part: _spread(part.spread_before)),
    ("VMs per node, min / max, after", lambda part: _spread(part.spread_after)),
    ("most VMs ever on a node", lambda part: str(part.most_on_a_node)),
)
