"""Text that somebody else wrote, on our terminal."""

from __future__ import annotations

import pytest

from controller.cli.text import cell
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
    """A reason is free text: it must neither break a row nor paint the screen."""
    assert one_line(text) == line


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", "[red]"])
def test_markup_in_a_cell_is_text(text: str) -> None:
    """What looks like rich's markup is what somebody wrote."""
    assert cell(text).plain == text
