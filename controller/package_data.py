"""Finds the files that are shipped with the program: manifests, scenarios, pinned Go modules.

Guarantees: a name means the same file, whether the program is installed from a wheel or runs from a checkout.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def path(name: str) -> Path:
    """Return the path of a shipped file or folder, by its path below the package, such as `manifests/crds`.

    Raises FileNotFoundError.
    """
    package = Path(str(files("controller")))
    # A wheel has the manifests in the package; a checkout has them beside it.
    for place in (package / name, package.parent / name):
        if place.exists():
            return place
    raise FileNotFoundError(f"{package / name} is missing: install vmsim again")
