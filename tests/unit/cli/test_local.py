"""The commands of the local control plane import it only when they run, and say where it cannot run."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
from controller.cli.main import app
try:
    app(sys.argv[1:], prog_name="vmsim")
except SystemExit as exit:
    loaded = sorted(name for name in sys.modules if name.startswith("controller.controlplane"))
    print(exit.code, loaded, file=sys.stderr)
"""
ON_WINDOWS = """
import sys, types
from controller.cli import local
from controller.cli.main import app
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("controller.controlplane"):
            raise ModuleNotFoundError("it imports fcntl, which is not there on Windows", name=name)
sys.meta_path.insert(0, Refuse())
local.sys = types.SimpleNamespace(platform="win32")
app(sys.argv[1:], prog_name="vmsim")
"""


def execute(script: str, *arguments: str) -> tuple[int, str]:
    """Run a script; return its exit code and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=15
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("up", "--help"),
        ("run", "--help"),
        ("migrate", "--help"),
        ("migrate", "vm-1", "--kubeconfig", "/nowhere"),
        ("migrations", "--kubeconfig", "/nowhere"),
        ("load", "quickstart", "--dry-run"),
    ],
    ids=" ".join,
)
def test_other_commands_do_not_import_the_control_plane(arguments: tuple[str, ...]) -> None:
    """They would be slower, and would not start on Windows."""
    _, err = execute(LOADED, *arguments)

    assert err.splitlines()[-1].partition(" ")[2] == "[]"


def test_the_check_of_imports_finds_an_import(tmp_path: object) -> None:
    """A check that never finds one would pass, too."""
    _, err = execute(LOADED, "status", "--state", str(tmp_path))

    assert "controller.controlplane.plane" in err


@pytest.mark.parametrize("command", ["up", "down", "status", "run"])
def test_the_commands_of_the_control_plane_name_wsl_on_windows(command: str) -> None:
    """In one line, without an import of modules that Windows lacks."""
    code, err = execute(ON_WINDOWS, command)

    assert code == 1
    assert err.startswith("error: a local control plane runs on Linux and macOS; on Windows run this command in WSL")
    assert len(err.splitlines()) == 1


def test_other_commands_work_on_windows() -> None:
    """`vmsim migrate` gets as far as its kubeconfig."""
    assert execute(ON_WINDOWS, "migrate", "vm-1", "--kubeconfig", "/nowhere") == (
        1,
        "error: cannot use /nowhere: it does not exist\n",
    )
