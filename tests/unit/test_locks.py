"""Whatever is installed is what was locked: a version and its hashes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    pinned = re.compile(r"[a-z0-9][a-z0-9._-]*==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in found if not pinned.fullmatch(line)] == []
