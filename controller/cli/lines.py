"""Progress of long work: a bar on a terminal; elsewhere a line when the state changes, and one at intervals."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column


def bar_with_reason(console: Console) -> Progress:
    """Return a bar that disappears at the end; each task has a field `why`, truncated at the end of the line."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[why]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,
        transient=True,
    )


class Lines:
    """Prints a line when the state changes, else at most one every `every` seconds; `state` is printed already."""

    def __init__(self, console: Console, *, every: float, state: object = None) -> None:
        self._console = console
        self._every = every
        self._clock = asyncio.get_running_loop().time
        self._next = self._clock() + every
        self._state = state

    def report(self, state: object, line: str) -> None:
        """Print the line if the state has changed, or if the last line is `every` seconds old."""
        now = self._clock()
        if state == self._state and now < self._next:
            return
        self._state = state
        self._next = now + self._every
        self._console.print(line)
