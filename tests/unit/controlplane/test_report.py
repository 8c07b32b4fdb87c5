"""Progress is reported in lines for a log, at most one every 15 seconds."""

import pytest

from controller.controlplane.report import PlainReporter, TerminalReporter, progress_line


def test_line_extrapolates_the_time_left() -> None:
    """From the pace so far."""
    line = progress_line("building etcd", 250, 1000, 30.0, "packages")

    assert line == "building etcd, 250 of 1000 packages, 30 s elapsed, about 1 min 30 s left"


def test_line_has_no_time_left_before_the_first_step() -> None:
    """The pace is not known yet."""
    assert progress_line("building etcd", 0, 1000, 30.0, "packages") == (
        "building etcd, 0 of 1000 packages, 30 s elapsed"
    )


def test_line_without_a_total_shows_the_detail() -> None:
    """Some work has no known total."""
    assert progress_line("looking up", 0, 0, 61.0, "7 modules downloaded") == (
        "looking up, 7 modules downloaded, 1 min 01 s elapsed"
    )


def test_plain_progress_is_one_line_an_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """So a CI log stays readable."""
    clock = iter([0.0, 5.0, 15.0, 16.0, 31.0])
    reporter = PlainReporter(clock=lambda: next(clock))

    with reporter.task("building") as advance:
        for done in range(1, 5):
            advance(done, 8, "packages")

    assert capsys.readouterr().err.splitlines() == [
        "building",
        "building, 2 of 8 packages, 15 s elapsed, about 45 s left",
        "building, 4 of 8 packages, 31 s elapsed, about 31 s left",
    ]


def test_messages_go_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    """So results on stdout can be piped."""
    for reporter in (PlainReporter(), TerminalReporter()):
        reporter.say("something")
        reporter.warn("something else")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "something\nwarning: something else\n" * 2


def test_terminal_messages_are_not_parsed_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths and errors may contain brackets."""
    TerminalReporter().say("[errno 2] in [bold]path")

    assert capsys.readouterr().err == "[errno 2] in [bold]path\n"
