"""Finds scenarios: a file by its path, or a shipped scenario by its name.

Guarantees: an existing file takes precedence over a shipped scenario of the same name; no more than the maximum size of
a scenario is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller import package_data
from controller.scenario.document import LONGEST, decode
from controller.scenario.errors import DocumentError, NoScenarioError, Problem, listed
from controller.scenario.scenario import Scenario
from controller.scenario.schema import parse

_SCENARIOS: Final = "manifests/scenarios"
_SUFFIX: Final = ".yaml"


def read(name: str) -> Scenario:
    """Read a scenario by its path, or a shipped one by its name.

    Raises NoScenarioError if there is none, DocumentError with all of its problems.
    """
    path = find(name)
    if path is None:
        raise NoScenarioError(f"there is no file {name}; scenarios that come with vmsim: {listed(shipped())}")
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise NoScenarioError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > LONGEST:
        raise DocumentError([Problem(str(path), 1, "", f"is larger than {LONGEST} bytes")])
    return parse(decode(data, str(path)), str(path), path.parent)


def find(name: str) -> Path | None:
    """Return the path of a scenario; None if there is none."""
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    return package_data.path(_SCENARIOS) / f"{name}{_SUFFIX}" if name in shipped() else None


def shipped() -> list[str]:
    """Return the names of the scenarios that come with vmsim."""
    return sorted(path.stem for path in package_data.path(_SCENARIOS).glob(f"*{_SUFFIX}"))
