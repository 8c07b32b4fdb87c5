"""Foreign text, durations and ages on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.cli.text import age, cell, human_duration
from controller.operations.text import one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines", "two lines"),
        ("\x1b[31mred", "[31mred"),
        ("bell\x07", "bell"),
        ("  much   room ", "much room"),
        ("größer → kleiner", "größer → kleiner"),
        ("", ""),
        (None, ""),
    ],
)
def test_control_characters_do_not_reach_the_terminal(text: str | None, line: str) -> None:
    """A reason is free text: it must neither break a row nor colour the screen."""
    assert one_line(text) == line


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", "[red]"])
def test_markup_in_a_cell_is_text(text: str) -> None:
    """A cell is foreign text."""
    assert cell(text).plain == text


S, M, H, D = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MS = timedelta(milliseconds=1)
DURATIONS = [
    (S, "1s"),
    (70 * S, "70s"),
    (190 * S, "3m10s"),
    (70 * M, "70m"),
    (47 * H, "47h"),
    (49 * H, "2d1h"),
    ((8 * 24 + 2) * H, "8d"),
    (367 * D, "367d"),
    ((365 * 2 * 24 + 25) * H, "2y1d"),
    ((365 * 8 * 24 + 2) * H, "8y"),
    (-2 * S, "<invalid>"),
    (-2 * S + MS, "0s"),
    (0 * S, "0s"),
    (S - MS, "0s"),
    (2 * M - MS, "119s"),
    (2 * M, "2m"),
    (2 * M + S, "2m1s"),
    (10 * M - MS, "9m59s"),
    (10 * M, "10m"),
    (10 * M + S, "10m"),
    (3 * H - MS, "179m"),
    (3 * H, "3h"),
    (3 * H + M, "3h1m"),
    (8 * H - MS, "7h59m"),
    (8 * H, "8h"),
    (8 * H + 59 * M, "8h"),
    (2 * D - MS, "47h"),
    (2 * D, "2d"),
    (2 * D + H, "2d1h"),
    (8 * D - MS, "7d23h"),
    (8 * D, "8d"),
    (8 * D + 23 * H, "8d"),
    (2 * 365 * D - MS, "729d"),
    (2 * 365 * D, "2y"),
    (2 * 365 * D + 23 * H, "2y"),
    (2 * 365 * D + 23 * H + 59 * M, "2y"),
    (2 * 365 * D + 24 * H - MS, "2y"),
    (2 * 365 * D + 24 * H, "2y1d"),
    (3 * 365 * D, "3y"),
    (7 * 365 * D, "7y"),
    (8 * 365 * D - MS, "7y364d"),
    (8 * 365 * D, "8y"),
    (8 * 365 * D + 364 * D, "8y"),
    (9 * 365 * D, "9y"),
]


@pytest.mark.parametrize(("duration", "words"), DURATIONS, ids=[f"{index}" for index in range(len(DURATIONS))])
def test_durations_are_written_as_kubectl_writes_them(duration: timedelta, words: str) -> None:
    """The tables of apimachinery's TestHumanDuration and TestHumanDurationBoundaries."""
    assert human_duration(duration) == words


def test_an_age_is_counted_from_a_timestamp() -> None:
    """Without a timestamp it is unknown."""
    now = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    assert age("2026-01-13T05:30:00Z", now) == "2d5h"
    assert age(None, now) == "<unknown>"
