"""Parts of messages: text from the cluster, made safe to quote in one line, and numbers of things."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def one_line(text: str | None) -> str:
    """Return text of foreign origin as one line without control characters; None is empty."""
    return " ".join("".join(c if c.isprintable() else " " for c in text or "").split())


def counted(number: int, what: str) -> str:
    """Return `1 VM`, `2 VMs` and the like."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Return the message about a field that is not known, with the most similar known one."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown field: {f'did you mean {near[0]}?' if near else 'known are ' + ', '.join(known)}"
