"""The chart that a run writes: bursts by contestant, and the cost of a VM by the size of the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from hack.bench import contestants
from hack.bench.figures import Results
from hack.bench.verdicts import growth_sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS: Final = (
    ("burst", "per_second", "Burst: VMs to Running, per second"),
    ("burst", "cpu_ms", "Burst: controller CPU a VM (ms)"),
    ("burst", "status_writes", "Burst: status writes a VM"),
    ("latency", "p99_ms", "20 changes/s on a large fleet: p99 (ms)"),
    ("idle", "rss_mib", "Large fleet at rest: memory (MiB)"),
)
_COLOURS: Final = {one.name: f"C{number}" for number, one in enumerate(contestants.ALL)}


def write(results: Results, path: Path) -> None:
    """Draw the results as PNG."""
    # Imported here, since it takes a second to load and only a run that has ended needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(16, 8), layout="constrained")
    FigureCanvasAgg(figure)
    about = results.machine
    figure.suptitle(f"vmsim and others, on {about['cores']} cores ({about['cpu']}); lines: least to greatest")
    *bars, growth = figure.subplots(2, 3).flat
    for axes, (measure, key, title) in zip(bars, _BARS, strict=True):
        _bars(axes, results, measure, key)
        axes.set_title(title, fontsize="medium")
    _growth(growth, results)
    figure.savefig(path, format="png", dpi=100)


def _bars(axes: Axes, results: Results, measure: str, key: str) -> None:
    found = {one.name: results.spread(measure, one.name, key) for one in contestants.ALL}
    measured = {name: spread for name, spread in found.items() if spread is not None}
    if not measured:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    middles = [spread.middle for spread in measured.values()]
    errors = [
        [spread.middle - spread.least for spread in measured.values()],
        [spread.most - spread.middle for spread in measured.values()],
    ]
    drawn = axes.bar(list(measured), middles, yerr=errors, capsize=4, color=[_COLOURS[name] for name in measured])
    axes.bar_label(drawn, fmt="%.3g", fontsize="small", padding=2)
    axes.tick_params(axis="x", labelsize="small", rotation=15)


def _growth(axes: Axes, results: Results) -> None:
    for one in contestants.ALL:
        points = [
            (size, spread.middle)
            for size in growth_sizes(results)
            if (spread := results.spread(f"growth {size}", one.name, "cpu_ms")) is not None
        ]
        if points:
            sizes, costs = zip(*points, strict=True)
            axes.plot(sizes, costs, marker="o", label=one.name, color=_COLOURS[one.name])
            axes.legend(fontsize="small")
    axes.set(xlabel="existing VMs", ylim=(0, None))
    axes.set_title("Controller CPU for one more VM (ms)", fontsize="medium")
