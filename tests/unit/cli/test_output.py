"""Output that cannot be written is one error line and an exit code; the work is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from controller.cli import output

PROGRAM = f"{sys.executable} -c 'from controller.cli.main import main; main()'"
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
LOST = "error: cannot write standard output: No space left on device\n"
CLOSED = "error: cannot write standard output: Bad file descriptor\n"


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run a line of bash; return exit code, standard output and standard error."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@needs_full
@pytest.mark.parametrize("command", ["--version", "migrate --help", "load diurnal --dry-run"])
def test_a_full_disk_is_one_error_line(command: str) -> None:
    """For plain output, help and tables."""
    assert shell(f"{PROGRAM} {command} > /dev/full") == (1, "", LOST)


@needs_full
def test_a_full_disk_under_both_streams_exits_with_code_1() -> None:
    """No stream is left for the message."""
    assert shell(f"{PROGRAM} --version > /dev/full 2>&1") == (1, "", "")


def test_a_closed_output_is_one_error_line() -> None:
    """With exit code 1, also if standard error is closed, too."""
    assert shell(f"{PROGRAM} --version >&-") == (1, "", CLOSED)
    assert shell(f"{PROGRAM} --version >&- 2>&-") == (1, "", "")


@needs_full
@pytest.mark.parametrize("stderr", ["2> /dev/full", "2>&-"])
def test_an_error_that_cannot_be_written_keeps_its_exit_code(stderr: str) -> None:
    """1 for a failure, 2 for an invalid flag."""
    assert shell(f"{PROGRAM} migrations --kubeconfig /nowhere {stderr}") == (1, "", "")
    assert shell(f"{PROGRAM} migrations --nonsense {stderr}") == (2, "", "")


def test_a_closed_standard_error_is_no_failure_without_a_message() -> None:
    """Nothing is lost."""
    code, out, _ = shell(f"{PROGRAM} --version 2>&-")
    assert (code, out[:6]) == (0, "vmsim ")


@pytest.mark.parametrize("command", ["--help", "load diurnal --dry-run"])
def test_a_closed_pipe_is_no_error(command: str) -> None:
    """`| head -1` closes it on purpose."""
    _, out, err = shell(f"{PROGRAM} {command} | head -1")
    assert out.count("\n") <= 1
    assert err == ""
    _, out, err = shell(f"{PROGRAM} {command} | true")
    assert (out, err) == ("", "")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_a_character_without_an_encoding_is_replaced(tmp_path: Path, environment: dict[str, str]) -> None:
    """On both streams."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "apiVersion: simulation.node-classifier.io/v1alpha1\nkind: Scenario\nname: a\nnodes: [{name: \N{SNOWMAN}}]\n",
        encoding="utf-8",
    )
    code, _, err = shell(f"{PROGRAM} load {scenario} --dry-run", **environment)
    assert code == 1
    assert "Traceback" not in err
    code, out, err = shell(
        f"""{sys.executable} -c 'from controller.cli import output; output.run(lambda: print("\\u2192 \\u2603"))'""",
        **environment,
    )
    assert (code, out, err) == (0, "? ?\n", "")


@needs_full
def test_the_work_runs_to_its_end_once_when_its_output_is_lost() -> None:
    """The exit code is 1."""
    done: list[str] = []

    def work() -> None:
        console = Console(force_terminal=True)
        with console.status("working"):
            for step in ("one", "two"):
                console.print(step)
                done.append(step)

    with FULL.open("w") as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            output.run(work)
        patch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert done == ["one", "two"]
    assert caught.value.code == 1


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (1, 1), (2, 2), (130, 130)])
def test_a_command_keeps_its_exit_code_when_its_output_is_written(code: int | None, expected: int) -> None:
    """The streams are restored."""
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit) as caught:
        output.run(lambda: sys.exit(code))
    assert caught.value.code == expected
    assert (sys.stdout, sys.stderr) == before
