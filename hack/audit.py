"""`make audit`: the packages of the image, looked up in PyPI's database of known vulnerabilities by pip-audit.

Guarantees: the exit code is 1 if a package has a known vulnerability, and only then; what could not be looked up, be it
all or some of it, is said. pip-audit runs from uv's cache, so development needs none of its dependencies.
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
"""Packages that are named when they could not be looked up; of more, the number says enough."""


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
    except (ValueError, KeyError, TypeError):  # pip-audit ends with 1 as well when it fails, but then reports nothing
        print(not_audited(done.stderr.strip().rpartition("\n")[2] or f"pip-audit ended with {done.returncode}"))
        return 0
    print(*told(dependencies), sep="\n")
    return int(any(vulnerabilities(dependencies)))


def vulnerabilities(dependencies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each vulnerability: the package, what is known by which name, and what to do."""
    for package in dependencies:
        for found in package.get("vulns", ()):
            better = " or ".join(found["fix_versions"])
            known = ", ".join((found["id"], *found.get("aliases", ())))
            remedy = f"fixed in {better}: make lock" if better else "there is no fix yet"
            yield f"{package['name']} {package['version']}: {known}; {remedy}"


def told(dependencies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a person should know of a report."""
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


def not_audited(why: str) -> str:
    """Say that nothing was found out."""
    return f"{LOCK} was not audited: {why}"


if __name__ == "__main__":
    sys.exit(main())
