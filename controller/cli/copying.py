"""How far a live migration is, for a terminal: a bar, KubeVirt's figures, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.cli.text import human_duration
from controller.operations.copying import Estimate

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_NOTHING: Final = timedelta()
_WIDTH: Final = 20
"""Columns of a bar."""


def words(estimate: Estimate, now: datetime) -> str:
    """Return the share that is copied, the bytes processed and remaining, and when it ends."""
    at = estimate.progress.checkpoint
    figures = f"{estimate.progress.share:.0%}: {size(at.sent)} processed, {size(at.rest)} remaining"
    return f"{figures}, {_end(estimate, now)}"


def bar(line: str, estimate: Estimate, now: datetime) -> RenderableType:
    """Return the line, and below it a bar and the words."""
    drawn = Table.grid(padding=(0, 1))
    drawn.add_row(ProgressBar(1.0, estimate.progress.share, _WIDTH), Text(words(estimate, now)))
    return Group(Text(line), drawn)


def summary(estimates: Sequence[Estimate], now: datetime) -> str:
    """Return how many VMs copy, what remains, and when the last of them ends; empty if none does."""
    if not estimates:
        return ""
    rest = size(sum(estimate.progress.checkpoint.rest for estimate in estimates))
    ends = [estimate.end.at if estimate.end is not None else None for estimate in estimates]
    known = [end for end in ends if end is not None]
    left = f", {human_duration(max(max(known) - now, _NOTHING))} left" if len(known) == len(ends) else ""
    return f"{len(estimates)} copying: {rest} remaining{left}"


def size(amount: float) -> str:
    """Return bytes in three or four figures: 512 B, 96.5 MiB, 7.1 GiB."""
    left, unit = amount, 0
    while left >= _STEP and unit < len(_UNITS) - 1:
        left, unit = left / _STEP, unit + 1
    return f"{left:.0f} {_UNITS[unit]}" if unit == 0 else f"{left:.1f} {_UNITS[unit]}"


def _end(estimate: Estimate, now: datetime) -> str:
    if estimate.end is None:
        return "does not converge soon"
    left = human_duration(max(estimate.end.at - now, _NOTHING))
    return f"ends in {left}" if estimate.end.completes else f"does not converge: times out in {left}"
