"""How long work is told: a bar on a terminal; elsewhere a line when the matter changes, and one now and then."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column


def bar_with_reason(console: Console) -> Progress:
    """Return a bar that goes away again; each task has a field `why`, which is cut where the line ends."""
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
    """Prints at most a line each `every` seconds about one matter; `matter` is what has been told already."""

    def __init__(self, console: Console, *, every: float, matter: object = None) -> None:
        self._console = console
        self._every = every
        self._clock = asyncio.get_running_loop().time
        self._next = self._clock() + every
        self._matter = matter

    def tell(self, matter: object, words: str) -> None:
        """Print, if the matter is another one or was told long ago."""
        now = self._clock()
        if matter == self._matter and now < self._next:
            return
        self._matter = matter
        self._next = now + self._every
        self._console.print(words)
