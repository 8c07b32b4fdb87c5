"""Text for a terminal: ages and durations, and the cluster's text without control characters and markup."""

from __future__ import annotations

from datetime import datetime, timedelta

from rich.text import Text

from controller.kube.times import parse_timestamp
from controller.operations.text import one_line


def age(created: str | None, now: datetime) -> str:
    """Return the age of a timestamp as kubectl prints it; 0s for one in the future (clock skew)."""
    moment = parse_timestamp(created)
    return human_duration(max(now - moment, timedelta())) if moment is not None else "<unknown>"


def human_duration(duration: timedelta) -> str:
    """Return a duration in two or three figures: 12s, 3m4s, 2h5m, 2d5h, 1y3d (apimachinery's HumanDuration)."""
    seconds = int(duration.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(0, seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    for applies, words in (
        (seconds < 120, f"{seconds}s"),  # noqa: PLR2004 - the numbers are HumanDuration's
        (minutes < 10, _two(minutes, "m", seconds % 60, "s")),  # noqa: PLR2004
        (minutes < 180, f"{minutes}m"),  # noqa: PLR2004
        (hours < 8, _two(hours, "h", minutes % 60, "m")),  # noqa: PLR2004
        (hours < 48, f"{hours}h"),  # noqa: PLR2004
        (days < 8, _two(days, "d", hours % 24, "h")),  # noqa: PLR2004
        (days < 365 * 2, f"{days}d"),
        (days < 365 * 8, _two(days // 365, "y", days % 365, "d")),
    ):
        if applies:
            return words
    return f"{days // 365}y"


def _two(whole: int, unit: str, rest: int, smaller: str) -> str:
    return f"{whole}{unit}{rest}{smaller}" if rest else f"{whole}{unit}"


def cell(text: str | None, style: str = "") -> Text:
    """Return foreign text as a table cell: one line, in which nothing is markup."""
    return Text(one_line(text), style=style)
