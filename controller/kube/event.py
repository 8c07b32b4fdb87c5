"""What an Event says, before it is written.

Guarantees: a value; the same event twice is equal, which is how a series is recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NORMAL: Final = "Normal"
WARNING: Final = "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing worth telling: what was done (`action`), why it matters (`reason`), in words (`note`)."""

    type: str
    reason: str
    action: str
    note: str
