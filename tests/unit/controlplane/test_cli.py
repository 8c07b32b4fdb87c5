"""The command line explains itself, and explains failures without a traceback."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from controller.controlplane.cli import app, parse_component_args
from controller.controlplane.errors import InvalidSettingError


def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb", **(environment or {})})


@pytest.mark.parametrize("command", ["up", "build"])
def test_help_names_every_environment_variable(command: str) -> None:
    """Whoever reads --help knows all there is to set."""
    shown = run(command, "--help").stdout

    assert set(re.findall(r"env var: (\w+)", shown)) == {
        "KUBEBUILDER_ASSETS",
        "VMSIM_CACHE_DIR",
        "VMSIM_DOWNLOAD_BASE_KUBERNETES",
        "VMSIM_DOWNLOAD_BASE_ETCD",
        "VMSIM_DOWNLOAD_BASE_KWOK",
        "VMSIM_KWOK_SHA256SUMS",
    }


def test_component_arguments_are_grouped() -> None:
    """Several arguments for one component, values with an equals sign, flags with or without dashes."""
    texts = ["etcd=snapshot-count=10", "kube-apiserver=--v=4", "etcd=heartbeat-interval=50", "etcd=x=a=b"]

    assert parse_component_args(texts) == {
        "etcd": {"snapshot-count": "10", "heartbeat-interval": "50", "x": "a=b"},
        "kube-apiserver": {"v": "4"},
    }


@pytest.mark.parametrize("text", ["etcd", "etcd=v", "=v=4", "etcd==4"])
def test_incomplete_component_argument_is_refused(text: str) -> None:
    """The error shows the form that was expected."""
    with pytest.raises(InvalidSettingError, match="COMPONENT=FLAG=VALUE"):
        parse_component_args([text])


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--nodes", "-1"],
        ["up", "--node-memory", "lots"],
        ["up", "--component-arg", "kubelet=v=4"],
        ["up", "--component-arg", "etcd"],
        ["up", "--audit-policy", "/nowhere"],
        ["up", "--assets", "/nowhere"],
        ["build", "--assets", "/nowhere"],
    ],
    ids=" ".join,
)
def test_failure_is_one_line_and_a_hint(tmp_path: Path, arguments: list[str]) -> None:
    """No traceback ever reaches a person for an expected failure."""
    directory = ["--dir", str(tmp_path / "state")] if arguments[0] == "up" else []

    result = run(*arguments, *directory)

    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]


def test_failed_up_leaves_nothing_running(tmp_path: Path) -> None:
    """There is no plane where its binaries could not be obtained."""
    cache = {"VMSIM_CACHE_DIR": str(tmp_path / "cache"), "PATH": ""}

    result = run("up", "--dir", str(tmp_path / "state"), "--offline", "--no-build", environment=cache)

    assert result.exit_code == 1
    assert "missing etcd" in result.stderr
    assert run("status", "--dir", str(tmp_path / "state")).exit_code == 1


def test_unusable_path_is_explained_too(tmp_path: Path) -> None:
    """What the system refuses is an expected failure."""
    (tmp_path / "file").write_text("")

    bases = ["--kubernetes-base", "http://127.0.0.1:1", "--etcd-base", "http://127.0.0.1:1"]
    downloads = [*bases, "--kwok-base", "http://127.0.0.1:1", "--kwok-sums", str(tmp_path / "file")]

    result = run("build", "--no-build", "--cache-dir", str(tmp_path / "file"), *downloads, environment={"PATH": ""})

    assert result.exit_code == 1
    assert "error: [Errno" in result.stderr


def test_down_needs_neither_home_nor_binaries(tmp_path: Path) -> None:
    """A plane can be taken away whatever has become of the environment."""
    result = run("down", "--dir", str(tmp_path), environment={"PATH": "", "HOME": "", "XDG_CACHE_HOME": ""})

    assert result.exit_code == 0


def test_down_without_a_plane_is_fine(tmp_path: Path) -> None:
    """Nothing to do is no failure, and creates no directory."""
    result = run("down", "--dir", str(tmp_path / "state"))

    assert result.exit_code == 0
    assert not (tmp_path / "state").exists()


def test_status_without_a_plane_says_so(tmp_path: Path) -> None:
    """Scripts can tell by the exit code."""
    result = run("status", "--dir", str(tmp_path / "state"))

    assert result.exit_code == 1
    assert result.stdout.startswith("no control plane in")
