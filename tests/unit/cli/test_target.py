"""The cluster of a command: by the user's choice, then kubectl's rules, then a local control plane; and its report."""

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
    """Return the current folder; neither the home nor the environment has a kubeconfig."""
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
    """Return the kubeconfig of a control plane that runs below the current folder, as commands print it."""
    kubeconfig(folder / ".vmsim" / "kubeconfig", f"https://127.0.0.1:{port}")
    return Path(".vmsim/kubeconfig")


def found(connection: Connection) -> tuple[str | None, list[str]]:
    """Return the kubeconfig that is used, and the lines that are reported."""
    reported: list[str] = []
    return find(connection, reported.append), reported


def home_config(folder: Path) -> Path:
    """Create ~/.kube/config."""
    home = folder.parent / "home" / ".kube"
    home.mkdir(parents=True)
    return kubeconfig(home / "config", "https://production.example:6443")


def test_a_running_plane_is_used_when_there_are_no_other_credentials(plane: Path) -> None:
    """One line reports it; after `vmsim up`, nothing needs to be exported."""
    assert found(Connection()) == (str(plane), ["using the local control plane that runs in .vmsim"])


@pytest.mark.usefixtures("folder")
def test_nothing_is_reported_without_any_cluster() -> None:
    """Reading the credentials raises the error."""
    assert found(Connection()) == (None, [])


def test_a_named_kubeconfig_is_used_without_a_report(plane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the flag or by the environment."""
    assert found(Connection(kubeconfig="/mine")) == ("/mine", [])
    monkeypatch.setenv("KUBECONFIG", "/from/environment")
    assert found(Connection()) == (None, [])
    assert plane.exists()


def test_the_home_config_named_by_the_environment_is_used_without_a_report(
    folder: Path, plane: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has chosen it."""
    monkeypatch.setenv("KUBECONFIG", str(home_config(folder)))

    assert found(Connection()) == (None, [])
    assert plane.exists()


def test_the_home_config_precedes_a_plane_and_its_cluster_is_named(folder: Path, plane: Path) -> None:
    """Otherwise a user may drain production's nodes instead of the local plane's."""
    config = home_config(folder)

    used, reported = found(Connection())

    assert used is None
    local = f"for the local control plane that runs in .vmsim: --kubeconfig {plane}"
    assert reported == [f"using cluster 'test' (https://production.example:6443) of {config}; {local}"]


def test_the_home_config_is_used_without_a_report_when_no_plane_runs(folder: Path) -> None:
    """A stopped plane does not count."""
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
        ({"proxy-url": "http://elsewhere.example:3128"}, {}),
    ],
    ids=["another machine", "a program", "a provider", "a proxy"],
)
def test_a_kubeconfig_that_leaves_the_machine_or_runs_a_program_is_no_plane(
    folder: Path, port: int, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    """A folder may come from anywhere: a command that runs in it must not run its files."""
    path = kubeconfig(folder / ".vmsim" / "kubeconfig", f"https://127.0.0.1:{port}")
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"] |= {key: value.format(port=port) for key, value in cluster.items()}
    document["users"][0]["user"] = user
    path.write_text(yaml.safe_dump(document))

    assert running_plane(folder / ".vmsim") is None


@pytest.mark.parametrize("server", ["https://127.0.0.1:99999", "https://127.0.0.1:abc", "https://[::1"])
def test_a_kubeconfig_with_a_malformed_server_is_no_plane(folder: Path, server: str) -> None:
    """It is not reported, since the command may not need it."""
    kubeconfig(folder / ".vmsim" / "kubeconfig", server)

    assert running_plane(folder / ".vmsim") is None


@pytest.mark.parametrize("text", ["", "{", "clusters: 1"])
def test_an_invalid_kubeconfig_is_no_plane(folder: Path, text: str) -> None:
    """It is not reported."""
    (folder / ".vmsim" / "kubeconfig").write_text(text)

    assert running_plane(folder / ".vmsim") is None


@pytest.mark.usefixtures("own_logging", "plane")
def test_a_command_reports_its_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, before any other output."""
    _, out, err = run(capsys, "migrations", "--request-timeout", "200ms")

    assert out == ""
    assert err.splitlines()[0] == "using the local control plane that runs in .vmsim"


def test_the_controller_reports_its_cluster(plane: Path) -> None:
    """On standard error, before its first log line."""
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
