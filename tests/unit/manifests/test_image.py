"""The image can be built, and needs nothing but what is locked for it. No engine is here, so its parts are judged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest
from typer.testing import CliRunner

from controller.cli.main import app
from tests.unit.manifests.shipped import REPOSITORY

INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n\s*", "", (REPOSITORY / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]
IGNORE = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
SOURCES = [
    source
    for instruction, rest in INSTRUCTIONS
    if instruction == "COPY" and not rest.startswith("--from")
    for source in rest.split()[:-1]
]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Return the versions that a lock file names."""
    return dict(PIN.findall((REPOSITORY / lock).read_text()))


def names(requirements: list[str]) -> set[str]:
    """Return the packages that requirements are about."""
    return {re.split(r"[^a-zA-Z0-9._-]", requirement)[0].lower() for requirement in requirements}


def last(instruction: str) -> str:
    """Return what an instruction says that counts once, at its last occurrence."""
    return [rest for name, rest in INSTRUCTIONS if name == instruction][-1]


def in_context(path: PurePosixPath) -> bool:
    """Whether .dockerignore leaves a path in the build's context: the last pattern about it or a parent decides."""
    kept = True
    for pattern in IGNORE:
        about = pattern.removeprefix("!").removeprefix("**/")
        anywhere = "**/" in pattern
        candidates = [str(path), *map(str, path.parents)]
        if any(fnmatch(PurePosixPath(one).name if anywhere else one, about) for one in candidates if one != "."):
            kept = pattern.startswith("!")
    return kept


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    """Docker would find it missing after minutes of building."""
    assert (REPOSITORY / source).exists()
    assert in_context(PurePosixPath(source))


@pytest.mark.parametrize(
    "path", ["tests", ".git", ".venv", "manifests/grafana", "hack/drills", "controller/__pycache__"]
)
def test_nothing_else_is_sent_to_the_engine(path: str) -> None:
    """A changed test must not rebuild the image; caches must not get into it."""
    assert not in_context(PurePosixPath(path))


def test_the_base_is_pinned_and_slim() -> None:
    """One base, a whole version of Python that the project supports."""
    bases = {rest.split()[0] for instruction, rest in INSTRUCTIONS if instruction == "FROM"} - {"base"}
    (base,) = bases
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", base)
    assert version is not None
    classifiers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["classifiers"]
    assert f"Programming Language :: Python :: {version[1]}" in classifiers


def test_the_user_is_numeric_and_not_root() -> None:
    """Kubernetes' runAsNonRoot cannot judge a name."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))


def test_the_default_command_is_one_that_vmsim_takes() -> None:
    """Its flags are in the command's help; it listens on all addresses of its container."""
    assert json.loads(last("ENTRYPOINT")) == ["vmsim"]
    command, *arguments = json.loads(last("CMD"))
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert {argument for argument in arguments if argument.startswith("--")} <= set(re.findall(r"--[\w-]+", shown))
    assert arguments[arguments.index("--metrics-bind-address") + 1] == f"0.0.0.0:{last('EXPOSE')}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_the_image_gets_the_versions_that_are_tested(lock: str) -> None:
    """Every version is that of requirements-dev.lock; `make lock` keeps it so."""
    tested = pins("requirements-dev.lock")
    assert pins(lock)
    assert {name: version for name, version in pins(lock).items() if tested.get(name) != version} == {}


def test_what_the_project_asks_for_is_locked_for_the_image() -> None:
    """What it needs to run, and what it is built with."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert names(project["project"]["dependencies"]) <= pins("requirements.lock").keys()
    assert names(project["build-system"]["requires"]) <= pins("requirements-build.lock").keys()


WITHOUT_THE_REST = """
import importlib, pkgutil, sys
blocked = set(sys.argv[1].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Blocker())
import controller
for module in pkgutil.walk_packages(controller.__path__, "controller."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all imported")
"""


def test_the_program_needs_nothing_beyond_what_is_locked_for_the_image() -> None:
    """Every module of it can be imported while all that only development has cannot be."""
    locked = {re.sub(r"[-_.]+", "-", name) for name in pins("requirements.lock")}
    blocked = {
        module
        for module, owners in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner.lower()) for owner in owners} & (locked | {"vmsim", "pip", "setuptools"})
    }
    assert {"pytest", "hypothesis", "kubernetes"} <= blocked
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_REST, ",".join(blocked)],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
        cwd=REPOSITORY,
    )
    assert done.stdout == "all imported\n", done.stderr


def test_what_is_copied_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    """With the program's name as a command, the types' marker, the resources that it installs, and its licences."""
    for source in SOURCES:
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / source, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    assert " ".join(command[1:]) in " ".join(rest for instruction, rest in INSTRUCTIONS if instruction == "RUN")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=15)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        content = archive.namelist()
        entry_points = archive.read(next(name for name in content if name.endswith("entry_points.txt"))).decode()
    assert "vmsim = controller.cli.entry:main" in entry_points
    manifests = {f"controller/manifests/{name}.yaml" for name in ("crds/virtualmachines", "scenarios/quickstart")}
    assert {"controller/py.typed", *manifests} <= set(content)
    licences = {PurePosixPath(name).name for name in content if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
