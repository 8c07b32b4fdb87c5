"""Which cluster is meant: what a person names, then kubectl's rules, then a local control plane; a surprise is said."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.connection import Connection
from controller.cli.target import find, running_plane
from tests.unit.cli.builders import run
from tests.unit.kube.builders import kubeconfig


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, in a home where no cluster is known."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("VMSIM_KUBECONFIG", raising=False)
    (tmp_path / "here" / ".vmsim").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def port() -> Iterator[int]:
    """Return a port on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def plane(folder: Path, port: int) -> Path:
    """Return the kubeconfig of a control plane that runs below the current folder, as commands name it."""
    kubeconfig(folder / ".vmsim" / "kubeconfig", f"https://127.0.0.1:{port}")
    return Path(".vmsim/kubeconfig")


def found(connection: Connection) -> tuple[str | None, list[str]]:
    """Return what is used, and what is said of it."""
    said: list[str] = []
    return find(connection, said.append), said


def test_a_plane_that_runs_is_used_where_there_is_no_other_cluster(plane: Path) -> None:
    """Whoever ran `vmsim up` need not export anything; one line says so."""
    assert found(Connection()) == (str(plane), ["using the local control plane that runs in .vmsim"])


@pytest.mark.usefixtures("folder")
def test_without_any_cluster_nothing_is_said() -> None:
    """That there is none is said by whoever needs one."""
    assert found(Connection()) == (None, [])


def test_what_a_person_names_is_used_without_a_word(plane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag, or the environment."""
    assert found(Connection(kubeconfig="/mine")) == ("/mine", [])
    monkeypatch.setenv("KUBECONFIG", "/from/environment")
    assert found(Connection()) == (None, [])
    assert plane.exists()


def home_config(folder: Path) -> Path:
    """Make ~/.kube/config."""
    home = folder.parent / "home" / ".kube"
    home.mkdir(parents=True)
    return kubeconfig(home / "config", "https://production.example:6443")


def test_the_home_config_comes_before_a_plane_and_its_cluster_is_named(folder: Path, plane: Path) -> None:
    """Nobody drains production's nodes by taking it for the plane that he has just started."""
    config = home_config(folder)

    used, said = found(Connection())

    assert used is None
    local = f"for the local control plane that runs in .vmsim: --kubeconfig {plane}"
    assert said == [f"using cluster 'test' (https://production.example:6443) of {config}; {local}"]


def test_the_home_config_alone_is_no_surprise(folder: Path) -> None:
    """A plane that was stopped is none that runs."""
    home_config(folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        kubeconfig(folder / ".vmsim" / "kubeconfig", f"https://127.0.0.1:{server.getsockname()[1]}")

    assert found(Connection()) == (None, [])


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({"server": "https://elsewhere.example:{port}"}, {}),
        (
            {},
            {
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "./evil",
                    "interactiveMode": "Never",
                }
            },
        ),
        ({}, {"auth-provider": {"name": "gcp"}}),
    ],
    ids=["another machine", "a program", "a provider"],
)
def test_a_file_that_leads_elsewhere_or_runs_something_is_no_plane(
    folder: Path, port: int, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    """Folders come from anywhere; who enters one and runs a command must not run what lies in it."""
    path = kubeconfig(folder / ".vmsim" / "kubeconfig", f"https://127.0.0.1:{port}")
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"] |= {key: value.format(port=port) for key, value in cluster.items()}
    document["users"][0]["user"] = user
    path.write_text(yaml.safe_dump(document))

    assert running_plane(folder / ".vmsim") is None


@pytest.mark.parametrize("text", ["", "{", "clusters: 1"])
def test_a_file_that_is_no_kubeconfig_is_no_plane(folder: Path, text: str) -> None:
    """And nobody is told of it."""
    (folder / ".vmsim" / "kubeconfig").write_text(text)

    assert running_plane(folder / ".vmsim") is None


@pytest.mark.usefixtures("own_logging", "plane")
def test_a_command_says_which_cluster_it_uses(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, before anything else."""
    _, out, err = run(capsys, "migrations", "--request-timeout", "200ms")

    assert out == ""
    assert err.splitlines()[0] == "using the local control plane that runs in .vmsim"


def test_the_controller_says_which_cluster_it_uses(plane: Path) -> None:
    """Beside its log, before it begins."""
    assert plane.exists()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "controller", "--metrics-bind-address", "127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "using the local control plane that runs in .vmsim\n"
        finally:
            process.kill()
