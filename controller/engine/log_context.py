"""What every log line of a reconcile says besides: for which key it is, why, and at which attempt.

Guarantees: tasks do not see each other's; setting it costs one assignment, where structlog's own context takes one
variable for each word.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

RECONCILE: Final[ContextVar[Mapping[str, Any]]] = ContextVar("reconcile", default=MappingProxyType({}))
"""The words that log lines of the present task get."""


def add_reconcile(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add them to a line, as a processor of structlog's; what the line says itself holds."""
    for name, value in RECONCILE.get().items():
        event.setdefault(name, value)
    return event
