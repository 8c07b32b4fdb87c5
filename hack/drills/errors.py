"""The error of a drill that cannot be carried out or judged."""

from __future__ import annotations


class DrillError(Exception):
    """A drill cannot be carried out or judged. The message is for the user."""
