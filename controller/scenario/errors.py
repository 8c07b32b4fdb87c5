"""Every way a scenario can fail, as a type.

Guarantees: each is a `SimulatorError`, whose message says what to do next; what a person has to look at one by one is
in the error as values, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.operations.errors import SimulatorError

SHOWN: Final = 10
"""Names that a one-line message lists before it counts the rest."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file."""

    file: str
    line: int
    field: str
    """Where in the document, such as `vms[0].cpu`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.field}: ' if self.field else ''}{self.message}"


class DocumentError(SimulatorError):
    """A scenario that cannot be used; `problems` are all that are wrong with it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__(listed(map(str, self.problems), separator="; "))


class NoScenarioError(SimulatorError):
    """No file, and no shipped scenario, of this name."""


class OccupiedError(SimulatorError):
    """What is in the cluster is in the way; nothing was changed. `conflicts` says what, object by object."""

    def __init__(self, conflicts: Iterable[str]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(f"nothing was changed: {listed(self.conflicts, separator='; ')}")


class NoNamespaceError(SimulatorError):
    """The namespace to load into does not exist."""


class NotRunningError(SimulatorError):
    """Not all nodes are ready and VMs running in time; `waiting` maps each that is not to the reason."""

    def __init__(self, deadline: float, waiting: Mapping[str, str]) -> None:
        self.waiting = dict(waiting)
        what = listed([f"{name}: {why}" for name, why in self.waiting.items()], separator="; ")
        super().__init__(f"not all that was loaded runs after {deadline:g} s: {what}")


class NotGoneError(SimulatorError):
    """Not all that was to be removed is gone in time; `left` names it."""

    def __init__(self, deadline: float, left: Iterable[str]) -> None:
        self.left = tuple(left)
        super().__init__(f"not all is gone after {deadline:g} s, run it again: {listed(self.left)} left")


def listed(words: Iterable[str], *, separator: str = ", ") -> str:
    """Join words for one line; many are cut short and counted."""
    everything = list(words)
    shown = everything[:SHOWN]
    more = len(everything) - len(shown)
    return separator.join([*shown, f"and {more} more"] if more else shown)
