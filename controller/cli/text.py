"""Words for people: ages, and text from the cluster made safe for a terminal."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from controller.domain.status import parse_timestamp
from controller.operations.text import one_line


def age(created: str | None, now: datetime) -> str:
    """Say how long ago, as kubectl does in short: 12s, 3m4s, 2h5m, 4d."""
    moment = parse_timestamp(created)
    if moment is None:
        return "<unknown>"
    seconds = max(0, int((now - moment).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:  # noqa: PLR2004 - apimachinery's duration.HumanDuration
        return f"{seconds}s"
    if minutes < 10:  # noqa: PLR2004
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:  # noqa: PLR2004
        return f"{minutes}m"
    if hours < 8:  # noqa: PLR2004
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{days}d"  # noqa: PLR2004


def cell(text: str | None, style: str = "") -> Text:
    """Return text that somebody else wrote for a table: nothing in it is markup."""
    return Text(one_line(text), style=style)
