"""`make audit`: looks up the image's packages in PyPI's database of known vulnerabilities, by pip-audit.

Guarantees: the exit code is 1 if a package has a known vulnerability, and only then; packages that could not be looked
up are reported. pip-audit runs from uv's cache, so development needs none of its dependencies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

LOCK: Final = "requirements.lock"
_PIP_AUDIT: Final = "pip-audit@2.10.1"
_DEADLINE: Final = 300.0
_NAMED: Final = 5
"""Packages that are named if they could not be looked up; of more, only the number is printed."""


def main() -> int:
    """Audit, print, and return the exit code."""
    uv = Path(sys.executable).with_name("uv")
    flags = ("--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json", "--requirement", LOCK)
    try:
        done = subprocess.run(
            [uv, "tool", "run", "--quiet", _PIP_AUDIT, *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(not_audited(str(error)))
        return 0
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):  # pip-audit also exits with 1 when it fails, but then prints no report
        print(not_audited(done.stderr.strip().rpartition("\n")[2] or f"pip-audit ended with {done.returncode}"))
        return 0
    print(*lines(dependencies), sep="\n")
    return int(any(vulnerabilities(dependencies)))


def vulnerabilities(dependencies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each vulnerability: the package, the identifiers, and the remedy."""
    for package in dependencies:
        for found in package.get("vulns", ()):
            better = " or ".join(found["fix_versions"])
            known = ", ".join((found["id"], *found.get("aliases", ())))
            remedy = f"fixed in {better}: make lock" if better else "there is no fix yet"
            yield f"{package['name']} {package['version']}: {known}; {remedy}"


def lines(dependencies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a report: vulnerabilities, packages that could not be looked up, and a summary."""
    skipped = [str(package["name"]) for package in dependencies if "skip_reason" in package]
    if len(skipped) == len(dependencies):
        yield not_audited("the database knows none of its packages, so it is not PyPI's")
        return
    found = list(vulnerabilities(dependencies))
    yield from found
    if skipped:
        named = ", ".join(skipped) if len(skipped) <= _NAMED else f"{len(skipped)} packages"
        yield f"not in the database: {named}"
    yield f"{LOCK}: {len(dependencies) - len(skipped)} packages looked up, {len(found)} known vulnerabilities"


def not_audited(reason: str) -> str:
    """Return the message of an audit that failed."""
    return f"{LOCK} was not audited: {reason}"


if __name__ == "__main__":
    sys.exit(main())
