"""Tables that can be read at any width: rows and columns where they fit, else one block a row.

Guarantees: nothing is cut, so two rows never look the same for want of room; only columns that are made for sentences
are folded, and none of them to less than a few words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

_GAP: Final = 2
"""Columns of the terminal between two of the table."""
_LEAST_FOLDED: Final = 20
"""Columns of the terminal that a sentence gets at least."""
_LEAST_VALUE: Final = 10
"""Columns of the terminal that a value gets at least beside its header; with less it stands after it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its header, and whether its text may be folded."""

    header: str
    folds: bool = False
    justify: Literal["left", "right"] = "left"


class Grid:
    """Rows under headers. Print it without soft wrapping."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._rows: list[tuple[Text, ...]] = []

    def add(self, *cells: Text | str) -> None:
        """Add a row; nothing in it is markup."""
        row = tuple(cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        if len(row) != len(self._columns):
            raise ValueError(f"{len(row)} cells for {len(self._columns)} columns")
        self._rows.append(row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it as wide as the terminal is."""
        del console
        if self._least_width() <= options.max_width:
            yield self._table()
        else:
            yield from self._blocks(options.max_width)

    def _least_width(self) -> int:
        """Return how many columns of the terminal a table takes in which nothing is cut."""
        return sum(map(self._least, range(len(self._columns)))) + _GAP * (len(self._columns) - 1)

    def _least(self, index: int) -> int:
        column = self._columns[index]
        longest = max((row[index].cell_len for row in self._rows), default=0)
        return max(Text(column.header).cell_len, min(longest, _LEAST_FOLDED) if column.folds else longest)

    def _table(self) -> Table:
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for index, column in enumerate(self._columns):
            drawn.add_column(
                column.header,
                justify=column.justify,
                no_wrap=not column.folds,
                overflow="fold",
                min_width=self._least(index),
            )
        for row in self._rows:
            drawn.add_row(*row)
        return drawn

    def _blocks(self, width: int) -> Iterator[RenderableType]:
        """Draw each row as lines of a header and its cell, without those that say nothing."""
        headers = max(len(column.header) for column in self._columns) + 1
        draw = self._block if headers + _GAP + _LEAST_VALUE <= width else self._lines
        for row, following in pairwise([*self._rows, None]):
            yield from draw(row or (), headers)
            if following is not None:
                yield ""

    def _block(self, row: tuple[Text, ...], headers: int) -> Iterator[RenderableType]:
        """Draw a row with its cells one below the other."""
        block = Table(box=None, pad_edge=False, show_header=False)
        block.add_column(style="bold", no_wrap=True, min_width=headers)
        block.add_column(overflow="fold")
        for header, cell in self._said(row):
            block.add_row(header, cell)
        yield block

    def _lines(self, row: tuple[Text, ...], _: int) -> Iterator[RenderableType]:
        """Draw a row where there is no room beside the headers."""
        for header, cell in self._said(row):
            yield Text.assemble((header, "bold"), " ", cell, overflow="fold")

    def _said(self, row: tuple[Text, ...]) -> Iterator[tuple[str, Text]]:
        return ((f"{column.header}:", cell) for column, cell in zip(self._columns, row, strict=True) if cell.plain)
