"""Ctrl-C ends a command silently during its imports and after its work, and in good order in between."""

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
IN_A_CALLBACK = """
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
        (VMSIM, "typer", IN_A_CALLBACK),
        (VMSIM, "controller.kube.client", IN_A_CALLBACK),
        (FOR_KUBECTL, "typer", AT_ONCE),
        (MODULE, "typer", AT_ONCE),
    ],
    ids=["vmsim", "vmsim, in a callback", "one command's own", "completion for kubectl", "python -m controller"],
)
def test_an_interrupt_during_the_imports_exits_silently(begin: str, module: str, interrupt: str) -> None:
    """Of any module, through every entry point."""
    script = INTERRUPTED_BY_A_MODULE.format(interrupt=interrupt) + begin
    assert run(script, module, "migrations") == (130, "", "")


def test_an_interrupt_after_the_work_exits_silently() -> None:
    """The interpreter still runs its exit handlers then."""
    script = f"import atexit, signal; atexit.register(signal.raise_signal, signal.SIGINT)\n{VMSIM}"
    code, out, err = run(script, "--version")
    assert (code, out[:6], err) == (130, "vmsim ", "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As in a shell's background job."""
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code, out, err = run(script + INTERRUPTED_BY_A_MODULE.format(interrupt=AT_ONCE) + VMSIM, "typer", "--version")
    assert (code, out[:6], err) == (0, "vmsim ", "")


def test_an_interrupt_during_the_work_closes_the_connection(tmp_path: Path) -> None:
    """The command exits through the interpreter, which runs its exit handlers."""
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
