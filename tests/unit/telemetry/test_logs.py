"""Log lines are console text on a terminal and JSON elsewhere."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from controller.telemetry.logs import LogFormat, LogLevel, configure, dropped_lines, write_line

pytestmark = pytest.mark.usefixtures("own_logging")


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the JSON objects on standard error; nothing may be on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_json_lines_have_a_time_a_level_and_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, on standard error, with the caller's own keys."""
    configure(LogFormat.JSON, LogLevel.INFO)
    structlog.get_logger().bind(resource="pods").info("listed", objects=3, odd={1})

    [line] = written(capsys)
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert at.tzinfo == UTC
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert line == {"event": "listed", "level": "info", "resource": "pods", "objects": 3, "odd": "{1}"}


def test_a_newline_in_a_value_does_not_break_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does JSON in a value."""
    configure(LogFormat.JSON, LogLevel.INFO)
    structlog.get_logger().warning("a\nb", error='"}\n{')

    [line] = written(capsys)
    assert (line["event"], line["error"]) == ("a\nb", '"}\n{')


def test_an_exception_is_one_json_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Its type, its message and its frames."""
    configure(LogFormat.JSON, LogLevel.INFO)
    try:
        raise ZeroDivisionError("a defect")  # noqa: TRY301 - the traceback is the point
    except ZeroDivisionError:
        structlog.get_logger().exception("reconcile failed")

    [line] = written(capsys)
    [exception] = line["exception"]
    assert (line["level"], exception["exc_type"], exception["exc_value"]) == ("error", "ZeroDivisionError", "a defect")
    assert exception["frames"][-1]["name"] == "test_an_exception_is_one_json_line_with_its_traceback"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (LogLevel.DEBUG, ["debug", "info", "warning", "error"]),
        (LogLevel.INFO, ["info", "warning", "error"]),
        (LogLevel.WARNING, ["warning", "error"]),
        (LogLevel.ERROR, ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written(
    capsys: pytest.CaptureFixture[str], level: LogLevel, expected: list[str]
) -> None:
    """Lines at the level and above are."""
    configure(LogFormat.JSON, level)
    log = structlog.get_logger()
    log.debug("x")
    log.info("x")
    log.warning("x")
    log.error("x")

    assert [line["level"] for line in written(capsys)] == expected


def test_records_of_libraries_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    """From WARNING on, at any chosen level; exceptions included."""
    configure(LogFormat.JSON, LogLevel.DEBUG)
    logging.getLogger("aiohttp").info("chatter")
    logging.getLogger("aiohttp").warning("%d things", 3)
    try:
        raise ZeroDivisionError("a defect")  # noqa: TRY301 - the traceback is the point
    except ZeroDivisionError:
        logging.getLogger("asyncio").exception("task died")

    first, second = written(capsys)
    assert (first["event"], first["level"]) == ("3 things", "warning")
    assert "timestamp" in first
    assert (second["event"], second["exception"][0]["exc_type"]) == ("task died", "ZeroDivisionError")


def test_warnings_of_libraries_are_not_written_at_level_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The chosen level applies to them, too."""
    configure(LogFormat.JSON, LogLevel.ERROR)
    logging.getLogger("aiohttp").warning("chatter")

    assert written(capsys) == []


@pytest.mark.parametrize("log_format", [LogFormat.CONSOLE, LogFormat.AUTO])
def test_without_a_terminal_auto_is_json_and_console_has_no_colour(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """Console lines have to be requested there."""
    configure(log_format, LogLevel.INFO)
    structlog.get_logger().info("listed", objects=3)

    text = capsys.readouterr().err
    if log_format is LogFormat.AUTO:
        assert json.loads(text)["objects"] == 3
    else:
        assert "listed" in text
        assert "objects=3" in text
        assert not text.startswith("{")
        assert "\x1b" not in text


def test_auto_is_console_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In colour."""
    import sys  # noqa: PLC0415 - the captured one of this test

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure(LogFormat.AUTO, LogLevel.INFO)
    structlog.get_logger().info("listed")

    text = capsys.readouterr().err
    assert "listed" in text
    assert "\x1b[" in text


def test_a_line_that_cannot_be_rendered_is_dropped_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The caller gets no error, and later lines are written."""

    class Odd:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    registry = CollectorRegistry()
    dropped_lines(registry)
    configure(LogFormat.JSON, LogLevel.INFO)
    structlog.get_logger().info("x", odd=Odd())
    logging.getLogger("aiohttp").warning("%s", Odd())
    structlog.get_logger().info("y")

    assert [line["event"] for line in written(capsys)] == ["y"]
    assert registry.get_sample_value("vmsim_log_lines_dropped_total") == 2


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_without_a_standard_error_nothing_is_written(monkeypatch: pytest.MonkeyPatch, log_format: LogFormat) -> None:
    """Python has none when the shell closed it."""
    import sys  # noqa: PLC0415 - the captured one of this test

    monkeypatch.setattr(sys, "stderr", None)
    configure(log_format, LogLevel.INFO)
    structlog.get_logger().info("x")
    logging.getLogger("aiohttp").warning("y")
    write_line("z")
