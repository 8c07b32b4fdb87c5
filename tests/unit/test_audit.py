"""The audit fails only on findings, and reports packages that it could not look up."""

from __future__ import annotations

from typing import Any

import pytest

from hack.audit import lines, vulnerabilities

CLEAN = {"name": "yarl", "version": "1.25.1", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE = {
    "name": "aiohttp",
    "version": "3.0.0",
    "vulns": [
        {"id": "GHSA-1", "aliases": ["CVE-2026-1"], "fix_versions": ["3.0.1", "3.1.0"], "description": "…"},
        {"id": "PYSEC-2", "aliases": [], "fix_versions": [], "description": "…"},
    ],
}
UNKNOWN = "requirements.lock was not audited: the database knows none of its packages, so it is not PyPI's"


def test_every_vulnerability_is_reported_with_its_fix() -> None:
    """By all its identifiers."""
    assert list(vulnerabilities([CLEAN, VULNERABLE, SKIPPED])) == [
        "aiohttp 3.0.0: GHSA-1, CVE-2026-1; fixed in 3.0.1 or 3.1.0: make lock",
        "aiohttp 3.0.0: PYSEC-2; there is no fix yet",
    ]


@pytest.mark.parametrize(
    ("dependencies", "last"),
    [
        ([CLEAN], "requirements.lock: 1 packages looked up, 0 known vulnerabilities"),
        ([CLEAN, VULNERABLE], "requirements.lock: 2 packages looked up, 2 known vulnerabilities"),
        (
            [SKIPPED, SKIPPED],
            UNKNOWN,
        ),
        (
            [],
            UNKNOWN,
        ),
    ],
    ids=["clean", "vulnerable", "all skipped", "nothing"],
)
def test_the_last_line_is_a_summary(dependencies: list[dict[str, Any]], last: str) -> None:
    """A database that has no package at all is reported as such."""
    assert list(lines(dependencies))[-1] == last


@pytest.mark.parametrize(("number", "named"), [(1, "rich"), (6, "6 packages")])
def test_packages_that_could_not_be_looked_up_are_reported(number: int, named: str) -> None:
    """By name, unless there are many."""
    assert f"not in the database: {named}" in list(lines([CLEAN, *[SKIPPED] * number]))
