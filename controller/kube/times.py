"""Formatting and parsing of Kubernetes timestamps and durations.

Guarantees: formatted times are UTC. Parsing returns None for invalid text, and never raises.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from controller.kube.quantity import decimal_text

CLOCK_SKEW: Final = 5.0
"""Seconds by which the cluster's clock and ours may differ without harm."""
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION: Final = re.compile(rf"\+?({_PART.pattern})+", re.ASCII)
_LONGEST_DURATION: Final = 64
"""Characters of a duration that are parsed: no meaningful one is longer."""


def timestamp(moment: datetime) -> str:
    """Format a time as a metav1.Time: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def micro_timestamp(moment: datetime) -> str:
    """Format a time as a metav1.MicroTime: UTC, microseconds, `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_timestamp(text: str | None) -> datetime | None:
    """Parse a Kubernetes time; None if it is absent or invalid."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # OverflowError: out of range in UTC
        return None


def parse_duration(text: str) -> float | None:
    """Parse a metav1.Duration that is not negative, such as `1m30s` or `0`, to seconds; None if it is invalid."""
    if text == "0":
        return 0.0
    if len(text) > _LONGEST_DURATION or not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def duration_text(seconds: float) -> str:
    """Write seconds that are not negative as a duration, exact to a nanosecond: `90s`, `0.3s`."""
    return f"{decimal_text(seconds)}s"


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Return the seconds between two Kubernetes times, at least 0, as clocks differ; None unless both are valid."""
    began, ended = parse_timestamp(earlier), parse_timestamp(later)
    return max(0.0, (ended - began).total_seconds()) if began is not None and ended is not None else None
