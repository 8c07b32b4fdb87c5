"""Reads the wanted columns of CSV files as spreadsheets and pandas write them.

Guarantees: any line ending, empty rows and columns, blanks around cells and unknown columns are accepted; a first line
`sep=;` sets the separator. Another separator, quotes around whole rows and decimal commas are each reported once as the
cause; an unusable row is a problem with its line.
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
"""Bad rows after which reading stops: the others are probably bad in the same way."""
_SEPARATORS: Final = {";": "';'", "\t": "tabs", "|": "'|'", " ": "spaces"}
_STATED: Final = re.compile(r'"?sep=([,;\t|])"?[ ,;\t|]*(?:\r\n|\r|\n)', re.ASCII | re.IGNORECASE)
"""The line by which Excel, but no other program, sets the separator of the columns."""
_QUOTED_ROWS: Final = "each row is one quoted cell: save it without quotes around whole rows"
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+", re.ASCII)
_LONGEST_HEADER: Final = 80
_BEGIN: Final = 4096
"""Characters that are probably another separator."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that could be read: the line of each, and the cells of each wanted column that the file has."""

    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]


def read(text: str, notes: Notes, *, needed: str, others: Sequence[str]) -> Table | None:
    """Read the `needed` column, and those of the `others` that the file has: at least one.

    Notes the problems of single rows; returns None, with a note, if the file as a whole cannot be used.
    """
    stated = _STATED.match(text)
    above = 1 if stated is not None else 0
    text = text[stated.end() :] if stated is not None else text
    first, *rest = [line for line in text[:_BEGIN].splitlines() if line.strip()] or [""]
    separator = stated[1] if stated is not None and stated[1] in first else ","
    if separator == "," and (cause := _other_separator(first, rest, needed, others)) is not None:
        notes.add(above + 1, "", cause)
        return None
    rows = _rows(text, notes, separator, above)
    line, header = next(rows, (above + 1, []))
    if notes.problems:
        return None
    if len(header) == 1 and separator in header[0]:
        notes.add(line, "", _QUOTED_ROWS)
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
    return _collect(rows, header, wanted, separator, notes)


def decimal_comma(cell: str) -> bool:
    """Whether a cell is a number with a comma where a point should be."""
    return _DECIMAL_COMMA.fullmatch(cell) is not None


def _rows(text: str, notes: Notes, separator: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, without trailing blank cells, and the line that each ends on.

    `above` lines of the file come before the text.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                del cells[-1]
            if cells:
                yield above + reader.line_num, cells
    except csv.Error as error:
        notes.add(above + max(1, reader.line_num), "", f"not valid CSV: {error}")


def _collect(
    rows: Iterator[tuple[int, list[str]]], header: Sequence[str], wanted: Sequence[str], separator: str, notes: Notes
) -> Table | None:
    places = {name: header.index(name) for name in wanted}
    lines: list[int] = []
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for line, row in rows:
        if not lines and len(row) == 1 and row[0].count(separator) == len(header) - 1 > 0:
            notes.add(line, "", _QUOTED_ROWS)
            return None
        if len(row) > len(header):
            wrong = f"has {len(row)} columns, the first line {len(header)}"
            if separator == "," and all(cell.isdigit() for cell in row):
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


def _other_separator(first: str, rest: Sequence[str], needed: str, others: Sequence[str]) -> str | None:
    """Return a message that names the separator, if the first line names the columns with one other than a comma."""
    for separator, words in _SEPARATORS.items():
        names = [name.strip().strip('"') for name in first.split(separator)]
        if separator == " " and "," in first:
            continue  # blanks around commas
        if needed in names and not set(others).isdisjoint(names):
            commas = any(decimal_comma(cell.strip()) for line in rest for cell in line.split(separator))
            numbers = (", and its numbers have decimal commas", " and points in numbers") if commas else ("", "")
            return f"its columns are separated by {words}{numbers[0]}: write it with commas between columns{numbers[1]}"
    return None
