"""What keeps a drill from being carried out or judged."""

from __future__ import annotations


class DrillError(Exception):
    """What went wrong, in words for a person."""
