"""The contents of a Kubernetes Event, before it is written.

Guarantees: an event is a value. Two equal events on one object belong to the same series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NORMAL: Final = "Normal"
WARNING: Final = "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    """An Event's `type`, its machine-readable `reason` and `action`, and its `note` for people."""

    type: str
    reason: str
    action: str
    note: str
