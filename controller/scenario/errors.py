"""The errors of scenarios, one type for each way to fail.

Guarantees: each is a `SimulatorError` whose message says what to do next; the single problems are attributes of the
error, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from controller.kube.quantity import decimal_text
from controller.operations.errors import RefusedError, SimulatorError

SHOWN: Final = 10
"""Items that a one-line message lists before it counts the rest."""
NOWHERE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})
"""No VM is elsewhere."""
TOGETHER: Final = 3
"""Names that are listed for one reason before the rest are counted."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file."""

    file: str
    line: int
    field: str
    """The path in the document, such as `vms[0].cpu`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.field}: ' if self.field else ''}{self.message}"


class DocumentError(SimulatorError):
    """An invalid scenario file; `problems` are all of its problems, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__(listed(map(str, self.problems), separator="; "))


class NoScenarioError(SimulatorError):
    """No file, and no shipped scenario, of this name."""


class SpeedError(SimulatorError):
    """A play at another speed than the VMs' controller; nothing was changed. `wanted` and `runs` are both speeds."""

    def __init__(self, wanted: float, who: str, runs: float, where: str) -> None:
        self.wanted, self.runs = wanted, runs
        play, run = decimal_text(wanted), decimal_text(runs)
        super().__init__(
            f"nothing was changed: the scenario would play at {play}x ({who}), but the controller runs at {run}x "
            f"({where}): pass --speed {run}, or start the controller with --speed {play} or 1"
        )


class OccupiedError(SimulatorError):
    """Existing objects conflict with the fleet; nothing was changed. `conflicts` has a line for each object."""

    def __init__(self, conflicts: Iterable[str]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(f"nothing was changed: {listed(self.conflicts, separator='; ')}")


class FleetRefusedError(RefusedError):
    """The API server would refuse some objects, so none was created; `problems` are their places and its messages.

    `code` and `reason` are those of the first problem.
    """

    def __init__(self, problems: Iterable[Problem], *, code: int, reason: str) -> None:
        self.problems = tuple(sorted(problems))
        words = listed((_text(problem) for problem in self.problems), separator="; ")
        super().__init__(f"nothing was created: {words}", code=code, reason=reason)


class NoNamespaceError(SimulatorError):
    """The namespace to load into does not exist."""


class NotRunningError(SimulatorError):
    """Not all nodes are ready and VMs running in time; `waiting` maps each of the others to the reason.

    `elsewhere` are the VMs that the scheduler did not put on the node that the fleet names, as in a load's outcome.
    """

    def __init__(
        self, deadline: float, waiting: Mapping[str, str], elsewhere: Mapping[str, tuple[str, str]] = NOWHERE
    ) -> None:
        self.waiting = dict(waiting)
        self.elsewhere = dict(elsewhere)
        super().__init__(f"not everything runs after {deadline:g} s: {reasons(self.waiting)}")


class UnansweredError(SimulatorError):
    """The API server did not answer all requests in time; `waiting` maps the unanswered ones to its last message."""

    def __init__(self, deadline: float, waiting: Mapping[str, str]) -> None:
        self.waiting = dict(waiting)
        words = f": {reasons(self.waiting)}" if self.waiting else ""
        super().__init__(f"the API server has not answered everything after {deadline:g} s{words}")


class NotGoneError(SimulatorError):
    """Objects to remove still existed at the deadline; `left` names them, `why` maps each name to the reason."""

    def __init__(self, deadline: float, why: Mapping[str, str]) -> None:
        self.why = dict(why)
        self.left = tuple(self.why)
        super().__init__(f"not everything is deleted after {deadline:g} s, run it again: {reasons(self.why)}")


class KeptError(SimulatorError):
    """The API server refused deletes, so no node was deleted after them; `kept` maps each object to the reason."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self.kept = dict(kept)
        super().__init__(f"the API server refused deletes, run it again once it allows them: {reasons(self.kept)}")


def _text(problem: Problem) -> str:
    """Return the text of a problem, with its place if it is in a file."""
    return str(problem) if problem.file else problem.message


def reasons(waiting: Mapping[str, str]) -> str:
    """Return one line: the waiting objects, grouped by the reason."""
    together: dict[str, list[str]] = {}
    for name, why in waiting.items():
        together.setdefault(why, []).append(name)
    return listed((f"{listed(names, at_most=TOGETHER)}: {why}" for why, names in together.items()), separator="; ")


def listed(words: Iterable[str], *, separator: str = ", ", at_most: int = SHOWN) -> str:
    """Join the first `at_most` words for one line; the rest are counted."""
    everything = list(words)
    shown = everything[:at_most]
    more = len(everything) - len(shown)
    return separator.join([*shown, f"and {more} more"] if more else shown)
