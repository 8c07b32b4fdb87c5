"""Flags and how they are refused, completion, and the plugin's name."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from controller.cli import flags
from controller.cli.main import complete_for_kubectl, program
from controller.cli.session import explain
from controller.kube import errors
from tests.unit.cli.builders import run
from tests.unit.kube.builders import kubeconfig

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("migrate",), "Missing argument"),
        (("migrate", "vm-1", "--priority", "urgent"), "Invalid value for '--priority'"),
        (("migrate", "vm-1", "--timeout", "5"), "needs --wait: without it, the command does not wait"),
        (("migrate", "vm-1", "--wait", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("migrations", "-A", "-n", "x"), "cannot be combined with --namespace"),
        (("drain",), "Missing argument"),
        (("drain", "n1", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("drain", "n1", "--timeout", "nan"), "Invalid value for '--timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_argument_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    """It is refused before any cluster is asked."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert complaint in " ".join(err.split())


@pytest.mark.parametrize("command", [("migrate", "vm-1"), ("migrations",), ("drain", "n1")], ids=" ".join)
def test_a_kubeconfig_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """And exit code 1, no traceback."""
    code, out, err = run(capsys, *command, "--kubeconfig", "/nowhere/config")
    assert (code, out) == (1, "")
    assert err == "error: cannot use /nowhere/config: it does not exist\n"


@pytest.mark.parametrize("command", [("migrate", "vm-1"), ("migrations",), ("drain", "n1")], ids=" ".join)
def test_the_kubeconfig_may_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """As for the controller."""
    monkeypatch.setenv("VMSIM_KUBECONFIG", "/elsewhere/config")
    assert "cannot use /elsewhere/config" in run(capsys, *command)[2]


@pytest.mark.parametrize("command", ["migrate", "migrations", "drain"])
def test_help_names_the_environment_variable(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Every command says how to point it at a cluster."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "VMSIM_KUBECONFIG" in out


EVERY_COMMAND = [
    ("migrate", "vm-1"),
    ("migrations",),
    ("drain", "n1"),
    ("load", "quickstart"),
    ("unload", "quickstart"),
    ("controller", "--metrics-bind-address", "127.0.0.1:0"),
]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda words: words[0])
def test_every_command_has_kubectls_flags(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """Those that say which cluster, as whom, and how long."""
    _, out, _ = run(capsys, command[0], "--help")
    for flag in ("--kubeconfig", "--context", "--cluster", "--user", "-n, --namespace", "--request-timeout"):
        assert flag in out


@pytest.mark.parametrize("command", EVERY_COMMAND[:-1], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (("--context", "x"), "--context names context 'x', which is not there; there are test"),
        (("--cluster", "x"), "--cluster names cluster 'x', which is not there; there are test"),
        (("--user", "x"), "--user names user 'x', which is not there; there are test"),
    ],
    ids=["context", "cluster", "user"],
)
def test_what_a_flag_names_has_to_be_there(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: tuple[str, ...],
    flag: tuple[str, str],
    words: str,
) -> None:
    """Nothing else is used in its place."""
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    code, out, err = run(capsys, *command, "--kubeconfig", str(config), *flag)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == f"error: cannot use {config}: {words}"


def test_the_controller_uses_nothing_else_either(tmp_path: Path) -> None:
    """In a process of its own, since it takes the signals."""
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "controller", "--kubeconfig", config, "--context", "x", "--request-timeout", "1s"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "--context names context 'x', which is not there; there are test" in done.stderr


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda words: words[0])
@pytest.mark.parametrize("text", ["soon", "-1", "-1s"])
def test_a_request_timeout_is_a_duration(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], text: str
) -> None:
    """Or a number of seconds."""
    code, _, err = run(capsys, *command, f"--request-timeout={text}")
    assert code == 2
    assert "is not a duration" in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", math.inf),
        ("0s", math.inf),
        ("90", 90),
        ("1s", 1),
        ("2m", 120),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("5us", 5e-6),
    ],
)
def test_a_request_timeout_is_written_as_for_kubectl(text: str | None, seconds: float | None) -> None:
    """Zero is no limit; nothing is the usual one."""
    assert flags.request_timeout(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize("text", ["1x", "1s2", "nan", "inf", "1d", "1 s", "s", "٣", "٣s", "1e3", "+5"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """As kubectl refuses it, in any digits."""
    with pytest.raises(typer.BadParameter):
        flags.request_timeout(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("ns/a", "a"),
        ("NS/a", "a"),
        ("namespace/a", "a"),
        ("namespaces/a", "a"),
        ("ns/", "ns/"),
        (None, None),
    ],
)
def test_a_namespace_may_be_written_as_a_resource(text: str | None, name: str | None) -> None:
    """kubectl strips the kind, too."""
    assert flags.namespace(text) == name


def test_a_controller_watches_the_one_namespace_or_several(capsys: pytest.CaptureFixture[str]) -> None:
    """Not both."""
    assert flags.watched("", "a") == ("a",)
    assert flags.watched("a,b", None) == ("a", "b")
    code, _, err = run(capsys, "controller", "-n", "a", "--namespaces", "b")
    assert code == 2
    assert "cannot be combined with --namespaces" in err


@pytest.mark.parametrize(
    "arguments", [("migrate", "\udcff"), ("migrate", "a", "--reason", "\udcff"), ("migrations", "-n", "\udcff")]
)
def test_an_argument_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    """It could not be sent; in one line, with the bytes."""
    code, out, err = run(capsys, *arguments)
    assert (code, out, err) == (2, "", "error: '\\udcff' is not valid UTF-8\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """The shell is named, since none runs us here."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = run(capsys, "--show-completion", shell)
    assert code == 0
    assert "_VMSIM_COMPLETE" in out


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/vmsim", "vmsim"),
        ("/usr/bin/kubectl-vmsim", "kubectl vmsim"),
        ("kubectl-vmsim.exe", "kubectl vmsim"),
        ("/x/controller/__main__.py", "vmsim"),
    ],
)
def test_a_plugin_knows_its_name(path: str, name: str) -> None:
    """Its usage shows what a person has to type."""
    assert program(path) == name


def test_the_plugin_leaves_completion_to_kubectl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script for a command of two words would not work."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-vmsim"])
    code, out, _ = run(capsys, "--show-completion")
    assert code == 0
    assert "kubectl completes its plugins by itself" in out


@pytest.mark.parametrize(
    ("words", "completions"), [(["mi"], ["migrate", "migrations"]), (["drain", "--rea"], ["--reason"]), (["zzz"], [])]
)
def test_kubectl_is_told_completions_and_then_the_directive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], completions: list[str]
) -> None:
    """It calls kubectl_complete-vmsim with the words so far."""
    monkeypatch.setattr("sys.argv", ["kubectl_complete-vmsim", *words])
    for variable in ("COMP_WORDS", "COMP_CWORD", "_VMSIM_COMPLETE"):
        monkeypatch.setenv(variable, "")  # so that what is set is taken back
    with pytest.raises(SystemExit):
        complete_for_kubectl()
    assert capsys.readouterr().out.split() == [*completions, ":4"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.TransportError("GET /x: refused"), "the API server does not answer: GET /x: refused"),
        (
            errors.NotFoundError(404, "", "404 page not found"),
            "the cluster does not know our resources: install them with vmsim install",
        ),
        (errors.NotFoundError(404, "NotFound", 'namespaces "x" not found'), 'namespaces "x" not found'),
        (errors.InvalidError(422, "Invalid", "spec.vmName:\n too long"), "spec.vmName: too long"),
        (errors.CredentialsError("no cluster to talk to"), "no cluster to talk to"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_explained_in_one_line(error: errors.KubeError, words: str) -> None:
    """With what to do, where that is known."""
    assert explain(error) == words
