"""CSV files as people have them, down to the cells of the columns that are wanted.

Guarantees: what spreadsheets and pandas leave in a file is passed over: any kind of line ending, rows and columns of
nothing, and columns that nobody wants. Another separator and decimal commas are named as the cause, once; a row that
cannot be used is a problem with its line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.scenario.document import Notes

SHOWN: Final = 20
"""Bad rows after which reading stops: the others are bad in the same way."""
_SEPARATORS: Final = {";": "';'", "\t": "tabs", "|": "'|'"}
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+", re.ASCII)
_LONGEST_HEADER: Final = 80
_BEGIN: Final = 4096
"""Characters in which another separator shows."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that could be read: the line of each, and the cells of each wanted column that is there."""

    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]


def read(text: str, notes: Notes, *, needed: str, others: Sequence[str]) -> Table | None:
    """Read the column that is needed, and those of the others that are there: at least one of them.

    Notes what is wrong with single rows; returns None, with a note, if the file as a whole cannot be used.
    """
    if (cause := _other_separator(text[:_BEGIN], needed, others)) is not None:
        notes.add(1, "", cause)
        return None
    rows = _rows(text, notes)
    line, header = next(rows, (1, []))
    if notes.problems:
        return None
    wanted = [name for name in header if name in (needed, *others)]
    if needed not in wanted or wanted == [needed]:
        found = ",".join(header)
        shown = found if len(found) <= _LONGEST_HEADER else f"{found[:_LONGEST_HEADER]}…"
        named = f"{needed}, and {' or '.join(others)}"
        notes.add(line, "", f"want a first line that names the columns {named}; not {shown!r}")
        return None
    if len(wanted) > len(set(wanted)):
        notes.add(line, "", f"a column is there twice: {','.join(wanted)}")
        return None
    return _collect(rows, header, wanted, notes)


def decimal_comma(cell: str) -> bool:
    """Whether a cell is a number with a comma where a point should be."""
    return _DECIMAL_COMMA.fullmatch(cell) is not None


def _rows(text: str, notes: Notes) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that hold anything, without blank cells at their ends, and the line that each ends on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                del cells[-1]
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        notes.add(max(1, reader.line_num), "", f"no CSV: {error}")


def _collect(
    rows: Iterator[tuple[int, list[str]]], header: Sequence[str], wanted: Sequence[str], notes: Notes
) -> Table | None:
    places = {name: header.index(name) for name in wanted}
    lines: list[int] = []
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for line, row in rows:
        if len(row) > len(header):
            wrong = f"has {len(row)} columns, the first line {len(header)}"
            if all(cell.isdigit() for cell in row):
                notes.add(line, "", f"{wrong}: if these are decimal commas, write 0.5, not 0,5")
                return None
            notes.add(line, "", wrong)
            if len(notes.problems) == SHOWN:
                break
            continue
        lines.append(line)
        for name, place in places.items():
            columns[name].append(row[place] if place < len(row) else "")
    if not lines and not notes.problems:
        notes.add(1, "", "has no rows below the first line")
    return Table(lines, columns)


def _other_separator(begin: str, needed: str, others: Sequence[str]) -> str | None:
    """Say how the columns of a file are separated whose first line names them, but not with commas between."""
    first, *rest = [line for line in begin.splitlines() if line.strip()] or [""]
    for separator, words in _SEPARATORS.items():
        names = [name.strip().strip('"') for name in first.split(separator)]
        if needed in names and not set(others).isdisjoint(names):
            commas = any(decimal_comma(cell.strip()) for line in rest for cell in line.split(separator))
            numbers = (", and its numbers have decimal commas", " and points in numbers") if commas else ("", "")
            return f"its columns are separated by {words}{numbers[0]}: write it with commas between columns{numbers[1]}"
    return None
