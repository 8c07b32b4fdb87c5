"""Text from the cluster, made safe for the line in which we quote it."""

from __future__ import annotations


def one_line(text: str | None) -> str:
    """Return text that somebody else wrote as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text or "").split())
