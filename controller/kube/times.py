"""Formatting and parsing of Kubernetes timestamps.

Guarantees: formatted times are UTC. Parsing returns None for invalid text, and never raises.
"""

from __future__ import annotations

from datetime import UTC, datetime


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


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Return the seconds between two Kubernetes times, at least 0, as clocks differ; None unless both are valid."""
    began, ended = parse_timestamp(earlier), parse_timestamp(later)
    return max(0.0, (ended - began).total_seconds()) if began is not None and ended is not None else None
