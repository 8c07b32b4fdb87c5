"""Flags and their errors, shell completion, and the name of kubectl's plugin."""

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
        (("migrate", "vm-1", "--strategy", "live-ish"), "Invalid value for '--strategy'"),
        (("migrate", "vm-1", "--cancel", "--to", "n2"), "takes no other flag: it creates no migration"),
        (("migrate", "vm-1", "--cancel", "--wait"), "takes no other flag: it creates no migration"),
        (("migrate", "vm-1", "--timeout", "5"), "needs --wait: without it, the command does not wait"),
        (("migrate", "vm-1", "--wait", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("migrations", "-A", "-n", "x"), "cannot be combined with --namespace"),
        (("drain",), "Invalid value for NODE: name nodes, or give --selector"),
        (("drain", "n1", "-l", "zone=a"), "Invalid value for --selector: cannot be combined with the names of nodes"),
        (("drain", "-l", "zone=a b", "--plan"), "'zone=a b' is not a label selector"),
        (("drain", "n1", "--within", "4h"), "Invalid value for --within: needs --plan"),
        (("drain", "n1", "--plan", "--timeout", "60"), "Invalid value for --timeout: cannot be combined with --plan"),
        (("drain", "n1", "-o", "json"), "Invalid value for --output: needs --plan"),
        (("drain", "n1", "--plan", "--within", "0s"), "'0s' is not a time: want a duration such as 30m or 4h"),
        (("drain", "n1", "--plan", "--within", "soon"), "'soon' is not a time"),
        (("drain", "n1", "--priority", "urgent"), "Invalid value for '--priority'"),
        (("drain", "n1", "--strategy", "Fast"), "Invalid value for '--strategy'"),
        (("drain", "n1", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("drain", "n1", "--timeout", "nan"), "Invalid value for '--timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_invalid_argument_exits_with_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    """It is refused before any request."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert complaint in " ".join(err.split())


@pytest.mark.parametrize("command", [("migrate", "vm-1"), ("migrations",), ("drain", "n1")], ids=" ".join)
def test_a_missing_kubeconfig_is_one_error_line(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """With exit code 1, without a traceback."""
    code, out, err = run(capsys, *command, "--kubeconfig", "/nowhere/config")
    assert (code, out) == (1, "")
    assert err == "error: cannot use /nowhere/config: it does not exist\n"


@pytest.mark.parametrize("command", [("migrate", "vm-1"), ("migrations",), ("drain", "n1")], ids=" ".join)
def test_the_kubeconfig_is_read_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """From VMSIM_KUBECONFIG, as for the controller."""
    monkeypatch.setenv("VMSIM_KUBECONFIG", "/elsewhere/config")
    assert "cannot use /elsewhere/config" in run(capsys, *command)[2]


@pytest.mark.parametrize("command", ["migrate", "migrations", "drain"])
def test_help_names_the_environment_variable_of_the_kubeconfig(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """On every command that connects to a cluster."""
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
def test_every_command_has_kubectls_connection_flags(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """Cluster, user, namespace and timeout."""
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
def test_a_flag_that_names_a_missing_entry_is_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: tuple[str, ...],
    flag: tuple[str, str],
    words: str,
) -> None:
    """No other entry of the kubeconfig is used instead."""
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    code, out, err = run(capsys, *command, "--kubeconfig", str(config), *flag)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == f"error: cannot use {config}: {words}"


def test_the_controller_refuses_a_missing_context(tmp_path: Path) -> None:
    """In a process of its own, since the controller installs signal handlers."""
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
def test_an_invalid_request_timeout_exits_with_code_2(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], text: str
) -> None:
    """On every command."""
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
def test_a_request_timeout_is_parsed_as_by_kubectl(text: str | None, seconds: float | None) -> None:
    """Zero means no limit, and None the default."""
    assert flags.request_timeout(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize("text", ["1x", "1s2", "nan", "inf", "1d", "1 s", "s", "٣", "٣s", "1e3", "+5"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    """As by kubectl, and so are digits that are not ASCII."""
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
def test_a_namespace_may_have_a_kind_as_prefix(text: str | None, name: str | None) -> None:
    """kubectl strips it, too."""
    assert flags.namespace(text) == name


def test_namespace_and_namespaces_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them alone is accepted."""
    assert flags.watched("", "a") == ("a",)
    assert flags.watched("a,b", None) == ("a", "b")
    code, _, err = run(capsys, "controller", "-n", "a", "--namespaces", "b")
    assert code == 2
    assert "cannot be combined with --namespaces" in err


@pytest.mark.parametrize(
    "arguments", [("migrate", "\udcff"), ("migrate", "a", "--reason", "\udcff"), ("migrations", "-n", "\udcff")]
)
def test_an_argument_that_is_not_utf_8_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """In one line with the escaped bytes: it could not be sent."""
    code, out, err = run(capsys, *arguments)
    assert (code, out, err) == (2, "", "error: '\\udcff' is not valid UTF-8\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """The shell is named, since the tests run in none."""
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
def test_a_plugin_has_the_name_that_the_user_types(path: str, name: str) -> None:
    """Its usage shows this name."""
    assert program(path) == name


def test_the_plugin_leaves_completion_to_kubectl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A completion script cannot serve a command of two words."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-vmsim"])
    code, out, _ = run(capsys, "--show-completion")
    assert code == 0
    assert "kubectl completes its plugins by itself" in out


@pytest.mark.parametrize(
    ("words", "completions"), [(["mi"], ["migrate", "migrations"]), (["drain", "--rea"], ["--reason"]), (["zzz"], [])]
)
def test_kubectl_gets_completions_and_then_the_directive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], completions: list[str]
) -> None:
    """It calls kubectl_complete-vmsim with the words so far."""
    monkeypatch.setattr("sys.argv", ["kubectl_complete-vmsim", *words])
    for variable in ("COMP_WORDS", "COMP_CWORD", "_VMSIM_COMPLETE"):
        monkeypatch.setenv(variable, "")  # so that monkeypatch restores them
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
