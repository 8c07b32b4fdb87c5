"""Text from the cluster, made safe to quote in one line."""

from __future__ import annotations


def one_line(text: str | None) -> str:
    """Return text of foreign origin as one line without control characters; None is empty."""
    return " ".join("".join(c if c.isprintable() else " " for c in text or "").split())
