"""`vmsim up`, `down` and `status` explain themselves, and explain failures without a traceback."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from controller.cli.main import app
from controller.cli.plane import failures_explained, parse_component_args, parse_schedulers
from controller.controlplane.download import Bases
from controller.controlplane.errors import InvalidSettingError

pytestmark = pytest.mark.usefixtures("own_signals")


def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb", **(environment or {})})


def test_help_names_every_environment_variable() -> None:
    """Of `vmsim up`."""
    shown = " ".join(run("up", "--help").stdout.split())

    assert set(re.findall(r"env var: (\w+)", shown)) == {
        "KUBEBUILDER_ASSETS",
        "VMSIM_CACHE_DIR",
        "VMSIM_DOWNLOAD_BASE_KUBERNETES",
        "VMSIM_DOWNLOAD_BASE_ETCD",
        "VMSIM_DOWNLOAD_BASE_KWOK",
        "VMSIM_KWOK_SHA256SUMS",
    }


def test_component_arguments_are_grouped_by_component() -> None:
    """Several arguments for one component, values with an equals sign, flags with or without dashes."""
    texts = ("etcd=snapshot-count=10", "kube-apiserver=--v=4", "etcd=heartbeat-interval=50", "etcd=x=a=b")

    assert parse_component_args(texts) == {
        "etcd": {"snapshot-count": "10", "heartbeat-interval": "50", "x": "a=b"},
        "kube-apiserver": {"v": "4"},
    }


@pytest.mark.parametrize("text", ["etcd", "etcd=v", "=v=4", "etcd==4"])
def test_an_incomplete_component_argument_is_refused(text: str) -> None:
    """The error shows the valid form."""
    with pytest.raises(InvalidSettingError, match="COMPONENT=FLAG=VALUE"):
        parse_component_args((text,))


def test_schedulers_are_named_with_their_files(tmp_path: Path) -> None:
    """A path may contain an equals sign."""
    file = tmp_path / "a=b.yaml"
    file.touch()

    parsed = parse_schedulers((f"packing={file}", "most-allocated=most-allocated"))

    assert list(parsed) == ["packing", "most-allocated"]
    assert parsed["packing"] == file


@pytest.mark.parametrize("texts", [("packing",), ("=most-allocated",), ("packing=",), ("a=most-allocated",) * 2])
def test_an_incomplete_or_repeated_scheduler_is_refused(texts: tuple[str, ...]) -> None:
    """The error shows the valid form, or the name."""
    with pytest.raises(InvalidSettingError, match=r"NAME=FILE|given twice"):
        parse_schedulers(texts)


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--nodes", "-1"],
        ["up", "--memory", "lots"],
        ["up", "--component-arg", "kubelet=v=4"],
        ["up", "--component-arg", "etcd"],
        ["up", "--scheduler", "packing"],
        ["up", "--scheduler", "packing=/nowhere"],
        ["up", "--scheduler", "default-scheduler=most-allocated"],
        ["up", "--scheduler", "packing=most-allocated"],
        ["up", "--audit-policy", "/nowhere"],
        ["up", "--assets", "/nowhere"],
        ["up", "--obtain-only", "--assets", "/nowhere"],
    ],
    ids=" ".join,
)
def test_an_expected_failure_is_an_error_line_and_a_hint_line(tmp_path: Path, arguments: list[str]) -> None:
    """Never a traceback."""
    result = run(*arguments, "--state", str(tmp_path / "state"))

    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]


def test_a_failed_up_leaves_nothing_running(tmp_path: Path) -> None:
    """Here the programs cannot be obtained."""
    cache = {"VMSIM_CACHE_DIR": str(tmp_path / "cache"), "PATH": ""}

    result = run("up", "--state", str(tmp_path / "state"), "--offline", "--no-build", environment=cache)

    assert result.exit_code == 1
    assert "missing etcd" in result.stderr
    assert run("status", "--state", str(tmp_path / "state")).exit_code == 1


def test_an_unusable_path_is_an_expected_failure(tmp_path: Path) -> None:
    """The message is the operating system's."""
    (tmp_path / "file").write_text("")

    bases = ["--kubernetes-base", "http://127.0.0.1:1", "--etcd-base", "http://127.0.0.1:1"]
    downloads = [*bases, "--kwok-base", "http://127.0.0.1:1", "--kwok-sums", str(tmp_path / "file")]

    result = run(
        "up", "--obtain-only", "--no-build", "--cache-dir", str(tmp_path / "file"), *downloads, environment={"PATH": ""}
    )

    assert result.exit_code == 1
    assert "error: [Errno" in result.stderr


def test_down_needs_neither_a_home_nor_programs(tmp_path: Path) -> None:
    """It works in any environment."""
    result = run("down", "--state", str(tmp_path), environment={"PATH": "", "HOME": "", "XDG_CACHE_HOME": ""})

    assert result.exit_code == 0


def test_down_without_a_plane_succeeds(tmp_path: Path) -> None:
    """It creates no directory."""
    result = run("down", "--state", str(tmp_path / "state"))

    assert result.exit_code == 0
    assert not (tmp_path / "state").exists()


def test_status_without_a_plane_exits_with_code_1(tmp_path: Path) -> None:
    """It says that there is none."""
    result = run("status", "--state", str(tmp_path / "state"))

    assert result.exit_code == 1
    assert result.stdout.startswith("no control plane in")


def test_help_names_the_base_urls_in_use() -> None:
    """They are written twice, since --help imports nothing of the control plane."""
    shown = " ".join(run("up", "--help").stdout.split())
    for flag, base in (("kubernetes", Bases().kubernetes), ("etcd", Bases().etcd), ("kwok", Bases().kwok)):
        assert re.search(rf"--{flag}-base URL [^-]*default: \(?{re.escape(base)}\)?\]", shown)


def test_up_does_not_overwrite_a_file_with_the_kubeconfig(tmp_path: Path) -> None:
    """It may be the user's own; nothing is started."""
    taken = tmp_path / "config"
    taken.write_text("mine")

    result = run("up", "--state", str(tmp_path / "state"), "--kubeconfig", str(taken))

    assert result.exit_code == 1
    assert f"error: {taken} exists, and is not overwritten" in result.stderr
    assert taken.read_text() == "mine"
    assert not (tmp_path / "state").exists()


def test_a_closed_pipe_is_not_explained() -> None:
    """The path and its disk are not at fault, and the reader of the output has ended."""
    with pytest.raises(BrokenPipeError), failures_explained():
        raise BrokenPipeError


def test_obtain_only_refuses_kubeconfig(tmp_path: Path) -> None:
    """The flag would have no effect."""
    result = run("up", "--obtain-only", "--kubeconfig", str(tmp_path / "config"))

    assert result.exit_code == 2
    assert "no credentials to write" in result.stderr


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize("name", ["controlplane/main.go", "controlplane", "kubeconfig"])
def test_foreign_files_in_the_folder_are_not_touched(tmp_path: Path, command: str, name: str) -> None:
    """`up` and `down` would otherwise remove files of these names."""
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("apiVersion: v1\nkind: Config\n")

    result = run(command, "--state", str(tmp_path))

    assert result.exit_code == 1
    assert (
        f"error: {tmp_path / name.split('/', maxsplit=1)[0]} exists and does not belong to a control plane"
        in result.stderr
    )
    assert "--state" in result.stderr
    assert theirs.exists()


def test_down_reports_whether_there_was_a_plane(tmp_path: Path) -> None:
    """An incomplete one counts."""
    (tmp_path / "controlplane").mkdir()

    first, second = run("down", "--state", str(tmp_path)), run("down", "--state", str(tmp_path))

    assert first.stderr == f"the control plane in {tmp_path} is removed\n"
    assert second.stderr == f"no control plane in {tmp_path}\n"
