"""The documented fixture: a cluster with VMs for the tests of other projects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.sdk.local_plane import local_plane
from controller.sdk.vm_manager import VMManager
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import left_running

pytestmark = pytest.mark.timeout(120)


def test_the_documented_fixture_yields_a_cluster_with_vms(tmp_path: Path) -> None:
    """In a project that has only the package; no process is left."""
    text = (REPOSITORY / "docs" / "python-api.md").read_text()
    [block] = [one for one in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if "fixture" in one]
    (tmp_path / "test_mine.py").write_text(block)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--basetemp",
        str(tmp_path / "temporary"),
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert left_running(tmp_path) == []


def test_a_second_use_of_a_plane_does_not_stop_it(tmp_path: Path) -> None:
    """An exception raised inside passes through unchanged."""
    with local_plane(tmp_path / "state", nodes=1) as plane:
        vms = VMManager(kubeconfig=plane.kubeconfig)
        with pytest.raises(OSError, match="mine"), local_plane(tmp_path / "state", nodes=1):
            raise OSError("mine")
        vms.create_vm("vm-1", cpu=0.1, memory=0.1)
        assert vms.wait_for_phase("vm-1", "Running").node_name == "kwok-node-1"
        assert plane.metrics.endswith("/metrics")
    assert left_running(tmp_path) == []
