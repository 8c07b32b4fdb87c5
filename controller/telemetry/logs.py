"""Structured logs: coloured key-value pairs on a terminal, one JSON object a line elsewhere.

Guarantees: every line has a time (UTC), a level and an event; a line below the chosen level costs next to nothing; log
records of libraries have the same format. Logging never fails and never blocks: a line that cannot be rendered or
written is dropped and counted (`controller.telemetry.sink`).
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.engine.log_context import add_reconcile
from controller.telemetry.sink import Sink

_FLUSH_TIMEOUT: Final = 1.0
"""Seconds for the last lines to be written when the process exits."""
_sink = Sink(sys.stderr)


class LogFormat(StrEnum):
    """The format of log lines; `auto` is `console` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Log every line of the process to standard error, if it is open."""
    global _sink  # noqa: PLW0603 - logging is the process's
    # If standard error was closed before the process started, sys.stderr may be a stand-in that drops lines uncounted.
    _sink = sink = Sink(sys.stderr if sys.__stderr__ is not None else None)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    terminal = _is_terminal()
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
        wrapper_class=_harmless(structlog.make_filtering_bound_logger(threshold), sink),
        logger_factory=structlog.WriteLoggerFactory(file=sink),  # type: ignore[arg-type]  # it writes and flushes
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def write_line(text: str) -> None:
    """Write a plain line in order with the log lines, such as an error message at exit."""
    _sink.write(f"{text}\n")


def dropped_lines(registry: CollectorRegistry) -> None:
    """Register the counter of dropped log lines."""

    class Dropped(Collector):
        def collect(self) -> Iterator[Metric]:
            yield CounterMetricFamily("vmsim_log_lines_dropped", "Log lines not written", value=_sink.dropped)

    registry.register(Dropped())


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # the stream is closed
        return False


def _harmless(logger: type[Any], sink: Sink) -> type[Any]:
    """Return a subclass of a logger that drops and counts a line it cannot render, and never raises."""

    class Harmless(logger):  # type: ignore[misc]  # structlog makes it at run time
        def _proxy_to_logger(self, *arguments: Any, **keywords: Any) -> Any:
            try:
                return super()._proxy_to_logger(*arguments, **keywords)
            except Exception:  # noqa: BLE001 - such as a repr that fails
                sink.lose()

    return Harmless


class _Handler(logging.StreamHandler[Sink]):
    """Counts records that it cannot write; the base class would report them to standard error, which may be blocked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the library's name
        self.stream.lose()


@atexit.register
def _flush() -> None:
    _sink.flush_within(_FLUSH_TIMEOUT)
