"""Tables at any width: all text is readable, and no two rows look the same."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.migrations import table
from controller.cli.tables import Column, Grid
from tests.unit.cli.builders import drawn, migration

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
LONG = "a-machine-with-a-name-as-long-as-people-give-them-in-real-clusters"


def grid(*rows: tuple[str, str]) -> Grid:
    """Return a table of names and sentences."""
    found = Grid(Column("NAME"), Column("MESSAGE", folds=True))
    for row in rows:
        found.add(*row)
    return found


def test_a_table_that_fits_has_rows_under_headers() -> None:
    """The sentences get the remaining width."""
    assert drawn(grid(("a", "one two three")), 40) == ["NAME  MESSAGE", "a     one two three"]


def test_a_table_that_does_not_fit_has_one_block_per_row() -> None:
    """Separated by blank lines, without empty cells."""
    lines = drawn(grid(("a" * 30, "no room on any node"), ("b" * 30, "")), 40)
    assert lines == [
        f"NAME:     {'a' * 30}",
        "MESSAGE:  no room on any node",
        "",
        f"NAME:     {'b' * 30}",
    ]


@pytest.mark.parametrize("width", [10, 12])
def test_values_follow_their_headers_on_a_very_narrow_terminal(width: int) -> None:
    """Line by line; the headers are complete."""
    lines = drawn(grid(("vm-1", "no room")), width)
    assert lines[0] == "NAME: vm-1"
    assert " ".join(lines[1:]) == "MESSAGE: no room"


def test_a_name_that_is_longer_than_a_line_is_folded() -> None:
    """It is not truncated."""
    lines = drawn(grid((LONG, "")), 40)
    assert "".join(lines).replace("NAME:", "").replace(" ", "") == LONG


@pytest.mark.parametrize("width", [10, 11, 14, 20, 24, 40, 60, 80, 120, 200])
def test_two_migrations_of_one_vm_look_different_at_any_width(width: int) -> None:
    """Name, VM and message are complete."""
    names = [f"{LONG}-{end}" for end in ("abcde", "fghij")]
    found = table(
        [migration(LONG, name=name, message="No node has room for what it requests") for name in names],
        namespaces=True,
        now=NOW,
    )
    lines = drawn(found, width)
    assert all(len(line) <= width for line in lines)
    text = "".join("".join(lines).split())
    for whole in (*names, "Nodehasroom"[2:]):
        assert whole in text
    assert "…" not in text


@given(
    rows=st.lists(
        st.tuples(st.text("ab-", min_size=1, max_size=60), st.text("xy ", max_size=80)), min_size=1, max_size=5
    ),
    width=st.integers(10, 220),
)
def test_no_character_is_lost_at_any_width(rows: list[tuple[str, str]], width: int) -> None:
    """No line is longer than the terminal is wide."""
    lines = drawn(grid(*rows), width)
    assert all(len(line) <= width for line in lines)
    text = "".join(lines)
    for letter in "ab-xy":
        assert text.count(letter) == sum(f"{name}{words}".count(letter) for name, words in rows)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    """Its cells would be under the wrong headers."""
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Grid(Column("A"), Column("B")).add("a")
