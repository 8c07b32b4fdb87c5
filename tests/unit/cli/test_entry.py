"""Ctrl-C ends a command without a word at whatever moment of its start or end, and as usual in between."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.kube.builders import kubeconfig

INTERRUPTED_BY_A_MODULE = """
import signal, sys, weakref

class Something: pass

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            {interrupt}

wanted = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupts())
"""
AT_ONCE = "signal.raise_signal(signal.SIGINT)"
WHERE_NO_ERROR_LEAVES = """
            something = Something()
            self.reference = weakref.ref(something, lambda _: signal.raise_signal(signal.SIGINT))
            del something
"""
VMSIM = "from controller.cli.entry import main; main()"
FOR_KUBECTL = "from controller.cli.entry import complete_for_kubectl; complete_for_kubectl()"
MODULE = "import runpy; runpy.run_module('controller', run_name='__main__')"
IN_ORDER = "import atexit; atexit.register(print, 'in order', flush=True)\n"


def run(script: str, *arguments: str) -> tuple[int, str, str]:
    """Run a script; return its exit code, standard output and standard error."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("begin", "module", "interrupt"),
    [
        (VMSIM, "typer", AT_ONCE),
        (VMSIM, "typer", WHERE_NO_ERROR_LEAVES),
        (VMSIM, "controller.kube.client", WHERE_NO_ERROR_LEAVES),
        (FOR_KUBECTL, "typer", AT_ONCE),
        (MODULE, "typer", AT_ONCE),
    ],
    ids=["vmsim", "vmsim, in a callback", "one command's own", "completion for kubectl", "python -m controller"],
)
def test_an_interrupt_while_a_command_is_loaded_ends_it_without_a_word(begin: str, module: str, interrupt: str) -> None:
    """Whichever module is being imported, and by whichever name it was started."""
    script = INTERRUPTED_BY_A_MODULE.format(interrupt=interrupt) + begin
    assert run(script, module, "migrations") == (130, "", "")


def test_an_interrupt_at_the_end_is_none_that_is_told() -> None:
    """The interpreter still has something to do then."""
    script = f"import atexit, signal; atexit.register(signal.raise_signal, signal.SIGINT)\n{VMSIM}"
    code, out, err = run(script, "--version")
    assert (code, out[:6], err) == (130, "vmsim ", "")


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As in a background job of a shell."""
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code, out, err = run(script + INTERRUPTED_BY_A_MODULE.format(interrupt=AT_ONCE) + VMSIM, "typer", "--version")
    assert (code, out[:6], err) == (0, "vmsim ", "")


def test_a_command_at_work_is_interrupted_in_good_order(tmp_path: Path) -> None:
    """It ends its conversation and leaves by the interpreter's door."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.getsockname()[1]}")
        command = [sys.executable, "-c", IN_ORDER + VMSIM, "migrations", "--kubeconfig", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            server.settimeout(15)
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=15)
    assert (process.returncode, out, err) == (130, "in order\n", "")
