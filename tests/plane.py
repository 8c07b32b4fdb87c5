"""A control plane with our resources."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from controller.controlplane.plane import ControlPlane

REPOSITORY: Final = Path(__file__).resolve().parents[1]
_DEADLINE: Final = 90.0


def install(plane: ControlPlane) -> None:
    """Install our CRDs on a control plane."""
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "KUBECTL": str(plane.kubectl)}
    script = REPOSITORY / "hack" / "setup_vm_crd.sh"
    subprocess.run([script], env=environment, check=True, timeout=_DEADLINE, capture_output=True)
