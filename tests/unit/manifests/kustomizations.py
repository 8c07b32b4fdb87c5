"""What `kubectl kustomize` makes of the manifests, for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.unit.manifests.shipped import REPOSITORY

MANIFESTS = REPOSITORY / "manifests"
NAME = "vmsim-controller"
CLUSTERS = ("base", "overlays/ha", "overlays/local", "overlays/namespaced", "all")
"""What installs the controller. `all` is the overlay of somebody who takes everything."""
SECURE = ("servicemonitor", "secure-metrics")

Objects = tuple[dict[str, Any], ...]


def kubectl() -> str:
    """Return the virtualenv's kubectl, or that on the path."""
    found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found is not None
    return found


@lru_cache
def built(path: Path) -> Objects:
    """Return the objects of a kustomization."""
    command = [kubectl(), "kustomize", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    assert done.stderr == ""
    return tuple(yaml.safe_load_all(done.stdout))


def write_overlay(directory: Path) -> Path:
    """Write the overlay of somebody who wants two replicas, the Prometheus operator and secure metrics."""

    def relative(path: str) -> str:
        return os.path.relpath(MANIFESTS / path, directory.resolve())

    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative("overlays/ha")],
        "components": [relative(f"components/{name}") for name in SECURE],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return directory


def of_kind(objects: Objects, *kinds: str) -> list[dict[str, Any]]:
    """Return the objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def the(objects: Objects, kind: str, name: str = NAME) -> dict[str, Any]:
    """Return the one object of this kind and name."""
    [found] = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod_of(objects: Objects) -> dict[str, Any]:
    """Return the Deployment's pod template."""
    template: dict[str, Any] = the(objects, "Deployment")["spec"]["template"]
    return template


def container_of(objects: Objects) -> dict[str, Any]:
    """Return the one container of the Deployment."""
    [container] = pod_of(objects)["spec"]["containers"]
    found: dict[str, Any] = container
    return found
