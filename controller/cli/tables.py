"""Tables for terminals of any width: rows and columns if they fit, else one block per row.

Guarantees: nothing is truncated, so two different rows never look the same; only columns of sentences are folded, and
never to less than a few words.
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
"""Characters between two columns."""
_LEAST_FOLDED: Final = 20
"""The least width of a column of sentences, in characters."""
_LEAST_VALUE: Final = 10
"""The least width of a value in a column beside its header, in characters; with less it follows the header."""


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
        """Draw rows and columns, or blocks if the terminal is too narrow for them."""
        del console
        if self._least_width() <= options.max_width:
            yield self._table()
        else:
            yield from self._blocks(options.max_width)

    def _least_width(self) -> int:
        """Return the least width of a table in which nothing is truncated, in characters."""
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
        """Draw each row as lines of a header and its cell, without empty cells."""
        headers = max(len(column.header) for column in self._columns) + 1
        draw = self._block if headers + _GAP + _LEAST_VALUE <= width else self._lines
        for row, following in pairwise([*self._rows, None]):
            yield from draw(row or (), headers)
            if following is not None:
                yield ""

    def _block(self, row: tuple[Text, ...], headers: int) -> Iterator[RenderableType]:
        """Draw a row as two columns: headers and cells."""
        block = Table(box=None, pad_edge=False, show_header=False)
        block.add_column(style="bold", no_wrap=True, min_width=headers)
        block.add_column(overflow="fold")
        for header, cell in self._filled(row):
            block.add_row(header, cell)
        yield block

    def _lines(self, row: tuple[Text, ...], _: int) -> Iterator[RenderableType]:
        """Draw a row on a terminal that is too narrow for two columns."""
        for header, cell in self._filled(row):
            yield Text.assemble((header, "bold"), " ", cell, overflow="fold")

    def _filled(self, row: tuple[Text, ...]) -> Iterator[tuple[str, Text]]:
        return ((f"{column.header}:", cell) for column, cell in zip(self._columns, row, strict=True) if cell.plain)
