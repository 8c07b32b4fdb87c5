"""The output that the user sees while the control plane is obtained and started.

On a terminal, long work has a live progress bar; elsewhere (CI logs, pipes) one plain line every 15 seconds. All
output goes to stderr, so that stdout stays free for results.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_INTERVAL = 15.0

# Called with (done, total, detail) as the work advances.
Advance = Callable[[int, int, str], None]


class Reporter(Protocol):
    """The sink of messages and progress."""

    def say(self, text: str) -> None:
        """Report an event, or work that starts now."""

    def warn(self, text: str) -> None:
        """Report a problem that does not end the work."""

    @contextmanager
    def task(self, title: str) -> Iterator[Advance]:
        """Show long work while the context lasts."""
        raise NotImplementedError


def progress_line(title: str, done: int, total: int, elapsed: float, detail: str) -> str:
    """Return progress as one line; the time left is extrapolated from the pace so far."""
    parts = [title]
    if total:
        parts.append(f"{done} of {total} {detail}".rstrip())
    elif detail:
        parts.append(detail)
    parts.append(f"{_minutes(elapsed)} elapsed")
    if 0 < done < total:
        parts.append(f"about {_minutes(elapsed / done * (total - done))} left")
    return ", ".join(parts)


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"  # noqa: PLR2004 - a minute


@dataclass(slots=True)
class PlainReporter:
    """Prints one line per message, for logs."""

    interval: float = _PLAIN_INTERVAL
    clock: Callable[[], float] = time.monotonic

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Print a line that begins with `warning:`."""
        self.say(f"warning: {text}")

    @contextmanager
    def task(self, title: str) -> Iterator[Advance]:
        """Print the title, then at most one line per interval."""
        self.say(title)
        started = printed = self.clock()

        def advance(done: int, total: int, detail: str) -> None:
            nonlocal printed
            now = self.clock()
            if now - printed >= self.interval:
                printed = now
                self.say(progress_line(title, done, total, now - started, detail))

        yield advance


@dataclass(slots=True)
class TerminalReporter:
    """Draws live progress bars, for a terminal."""

    console: Console = field(default_factory=lambda: Console(stderr=True))

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Print a line that begins with `warning:`."""
        self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False)

    @contextmanager
    def task(self, title: str) -> Iterator[Advance]:
        """Show a bar that is removed at the end."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, detail="")

            def advance(done: int, total: int, detail: str) -> None:
                shown = f"{done}/{total} {detail}" if total else detail
                progress.update(task, completed=done, total=total or None, detail=shown)

            yield advance


def default_reporter() -> Reporter:
    """Return a TerminalReporter if stderr is a terminal, else a PlainReporter."""
    return TerminalReporter() if sys.stderr.isatty() else PlainReporter()
