"""Every way an operation can fail, as a type.

Guarantees: a message is one line that says what went wrong and what to do next; whoever catches `SimulatorError` has
caught everything this room raises on purpose. What the API server or the way to it does is a `KubeError`, until
`translated` makes one of these of it.
"""

from __future__ import annotations


class SimulatorError(Exception):
    """Anything that can go wrong on purpose: the message says what to do."""


class NotListedError(SimulatorError):
    """The API server did not list a resource in time; the log says why, try by try."""
