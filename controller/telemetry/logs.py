"""Structured logs: key-value in colour on a terminal, one JSON object a line elsewhere.

Guarantees: every line has a time (UTC), a level and an event; a line below the chosen level costs next to
nothing; log records of libraries come out the same way.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum

import structlog

from controller.engine.log_context import add_reconcile


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Send every log line of the process to standard error."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr.isatty()
    shared: list[structlog.types.Processor] = [
        add_reconcile,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and terminal)
    renderer: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=terminal)]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(sort_keys=True)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)
