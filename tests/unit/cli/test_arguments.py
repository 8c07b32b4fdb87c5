"""Flags and how they are refused, completion, and the plugin's name."""

from __future__ import annotations

import pytest

from controller.cli.main import complete_for_kubectl, program
from controller.cli.session import explain
from controller.kube import errors
from tests.unit.cli.builders import run

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("migrate",), "Missing argument"),
        (("migrate", "vm-1", "--priority", "urgent"), "Invalid value for '--priority'"),
        (("migrate", "vm-1", "--timeout", "5"), "without --wait there is no wait to bound"),
        (("migrate", "vm-1", "--wait", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("migrations", "-A", "-n", "x"), "either one namespace or all of them"),
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
            "the cluster does not know our resources: install them with hack/setup_vm_crd.sh",
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
