"""Kubernetes' times, as text and as moments.

Guarantees: what is written is UTC; what cannot be read is None, never an error.
"""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """Write a moment as Kubernetes does: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def micro_timestamp(moment: datetime) -> str:
    """Write a moment as a metav1.MicroTime: UTC, microseconds, `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_timestamp(text: str | None) -> datetime | None:
    """Read a Kubernetes time; None for an absent or unreadable one."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the latter for a time that UTC's calendar lacks
        return None


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Return the time between two Kubernetes times, at least 0: clocks differ; None unless both are readable."""
    began, ended = parse_timestamp(earlier), parse_timestamp(later)
    return max(0.0, (ended - began).total_seconds()) if began is not None and ended is not None else None
