"""The log context of a reconcile: its key, cause and attempt, added to each log line.

Guarantees: each task has its own context. Setting it costs one assignment; structlog's own context takes one context
variable for each field.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

RECONCILE: Final[ContextVar[Mapping[str, Any]]] = ContextVar("reconcile", default=MappingProxyType({}))
"""The fields added to the log lines of the current task."""


def add_reconcile(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields to a log line, as a structlog processor. A field of the line itself takes precedence."""
    for name, value in RECONCILE.get().items():
        event.setdefault(name, value)
    return event
