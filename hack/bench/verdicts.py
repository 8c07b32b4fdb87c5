"""The targets, each with the measured figure; a figure that depends on the machine is reported and not judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hack.bench.figures import Results, Spread

_FLAT: Final = 1.10
"""The largest ratio of the largest to the smallest cost that counts as flat."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row; `met` is None for a figure that is reported and not judged."""

    what: str
    found: str
    target: str
    met: bool | None


def judge(results: Results) -> list[Verdict]:
    """Return the verdicts; rows without a measured figure are left out."""
    rows = [*_bursts(results), *_fleet(results), _growth(results), *_moves(results)]
    return [row for row in rows if row is not None]


def _bursts(results: Results) -> list[Verdict | None]:
    def ratio(to: str, key: str) -> Spread | None:
        return results.ratio("burst", "ours", to, key)

    go, coalescing, bare = "controller-runtime", "coalescing", "bare"
    return [
        _at_least("VM/s, to controller-runtime", ratio(go, "per_second"), 1.25),
        _at_least("VM/s, to its coalescing variant", ratio(coalescing, "per_second"), 1.0),
        _at_least("VM/s, to bare pods", ratio(bare, "per_second"), 0.5),
        _reported("VM/s, to Kopf", ratio("kopf", "per_second"), "x"),
        _at_most("CPU a VM, to controller-runtime", ratio(go, "cpu_ms"), 0.6),
        _reported("CPU a VM, to its coalescing variant", ratio(coalescing, "cpu_ms"), "x"),
        _reported("CPU a VM, to Kopf", ratio("kopf", "cpu_ms"), "x"),
        _reported("VM/s with Events, to without", results.ratio("burst", "events", "ours", "per_second"), "x"),
        _reported("CPU a VM with Events, to without", results.ratio("burst", "events", "ours", "cpu_ms"), "x"),
        _at_most("pod POSTs a VM", results.spread("burst", "ours", "pod_posts"), 1.0, ""),
        _at_most("status writes a VM", results.spread("burst", "ours", "status_writes"), 1.3, ""),
    ]


def _fleet(results: Results) -> list[Verdict | None]:
    def own(measure: str, key: str) -> Spread | None:
        return results.spread(measure, "ours", key)

    go = "controller-runtime"
    return [
        _at_most("idle: writes", own("idle", "writes"), 0, ""),
        _reported("idle: CPU, % of a core", own("idle", "cpu_percent"), "%", "< 0.5 %"),
        _at_most("idle: memory, to controller-runtime", results.ratio("idle", "ours", go, "rss_mib"), 1.0),
        _reported("cold start, until all is reconciled", own("cold", "settled"), " s", "≤ 3 s"),
        _at_most("cold start: writes", own("cold", "writes"), 0, ""),
        _reported("20 changes/s: p50", own("latency", "p50_ms"), " ms"),
        _reported("20 changes/s: p99", own("latency", "p99_ms"), " ms", "< 50 ms"),
        _at_most("20 changes/s: p99, to controller-runtime", results.ratio("latency", "ours", go, "p99_ms"), 1.0),
        _reported("one change: p50", own("change", "p50_ms"), " ms", "< 100 ms"),
        _reported("one change: longest", own("change", "max_ms"), " ms", "< 100 ms"),
    ]


def growth_sizes(results: Results) -> list[int]:
    """Return the sizes of the growing fleets, sorted."""
    measures = {sample.measure for sample in results.samples}
    return sorted(int(measure.split()[1]) for measure in measures if measure.startswith("growth "))


def _growth(results: Results) -> Verdict | None:
    costs = {
        size: spread.middle
        for size in growth_sizes(results)
        if (spread := results.spread(f"growth {size}", "ours", "cpu_ms")) is not None
    }
    if len(costs) < 2:  # noqa: PLR2004 - growth is between two
        return None
    found = ", ".join(f"{cost:.2f} ms at {size}" for size, cost in costs.items())
    return Verdict("CPU a VM by fleet size", found, "within 10 %", max(costs.values()) <= _FLAT * min(costs.values()))


def _moves(results: Results) -> list[Verdict | None]:
    def ratio(measure: str) -> Spread | None:
        return results.ratio(measure, "ours", "bare", "per_second")

    return [
        _at_least("migrations/s, to bare delete and create", ratio("migrations"), 0.45),
        _reported("live migrations/s, to bare create and delete", ratio("live"), "x"),
    ]


def _at_least(what: str, spread: Spread | None, least: float, unit: str = "x") -> Verdict | None:
    return _judged(what, spread, f"≥ {least:g}{unit}", unit, lambda value: value >= least)


def _at_most(what: str, spread: Spread | None, most: float, unit: str = "x") -> Verdict | None:
    return _judged(what, spread, f"≤ {most:g}{unit}", unit, lambda value: value <= most)


def _judged(what: str, spread: Spread | None, target: str, unit: str, meets: Callable[[float], bool]) -> Verdict | None:
    """Judge the median."""
    return None if spread is None else Verdict(what, text(spread, unit), target, meets(spread.middle))


def _reported(what: str, spread: Spread | None, unit: str, target: str = "") -> Verdict | None:
    return None if spread is None else Verdict(what, text(spread, unit), target, None)


def text(spread: Spread, unit: str = "") -> str:
    """Format a spread: the median, and the least and greatest value if they differ."""
    least, middle, most = (f"{value:.3g}" for value in (spread.least, spread.middle, spread.most))
    return f"{middle}{unit}" if least == most else f"{middle}{unit} ({least} to {most})"
