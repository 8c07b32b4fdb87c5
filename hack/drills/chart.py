"""The chart that a drill writes: the downtimes of VMs, and the number of VMs per node over time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hack.drills.report import Report

_BINS: Final = 20
_LEGEND_NODES: Final = 12


def write(report: Report, path: Path) -> None:
    """Draw a report as PNG."""
    # Imported here, since it takes a second to load and only a drill that has ended needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    downtimes, nodes = figure.subplots(1, 2)
    figure.suptitle(f"{report.drill}: {report.vms} VMs on {report.nodes} nodes, seed {report.seed}")

    samples = [part.downtimes for part in report.rounds if part.downtimes]
    labels = [f"{part.label} ({len(part.downtimes)})" for part in report.rounds if part.downtimes]
    if samples:
        downtimes.hist(samples, bins=_BINS, label=labels)
        downtimes.legend(fontsize="small")
    else:
        downtimes.text(0.5, 0.5, "no VM was down", ha="center", transform=downtimes.transAxes)
    downtimes.set(title="Downtime", xlabel="seconds without a Running pod", ylabel="times")

    for node, points in report.loads.items():
        at = [when for when, _ in points] + [report.seconds]
        counts = [count for _, count in points] + [points[-1][1]]
        nodes.step(at, counts, where="post", label=node, linewidth=1)
    for part in report.rounds:
        nodes.axvspan(part.began, part.ended, alpha=0.08, color="black")
    if 0 < len(report.loads) <= _LEGEND_NODES:
        nodes.legend(fontsize="x-small")
    nodes.set(title="VMs per node (shaded: the rounds)", xlabel="seconds", ylabel="live VM pods")
    nodes.set_ylim(bottom=0)
    figure.savefig(path, format="png", dpi=110)
