"""The installed program `vmsim`, run as a user runs it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.integration.tools import TIMEOUT, Output

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Vmsim:
    """The installed program, bound to a cluster."""

    environment: dict[str, str]

    @classmethod
    def against(cls, kubeconfig: Path) -> Self:
        """Bind it to a cluster, without any VMSIM_ variable of the test's environment."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VMSIM_")}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return cls({**environment, "KUBECONFIG": str(kubeconfig), "PATH": path})

    def __call__(self, *arguments: str, program: str = "vmsim") -> subprocess.CompletedProcess[str]:
        """Run it to its end, with no terminal."""
        return subprocess.run(
            [BIN / program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Output]]:
        """Run it while the context lasts; both outputs go into one."""
        with subprocess.Popen(
            [BIN / "vmsim", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            output = Output(process.stdout)
            try:
                yield process, output
            finally:
                process.kill()
                output.join()

    def interrupted(self, *arguments: str, after: str, by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Run it, and press Ctrl-C once a line has `after`; return the exit code and the output."""
        with self.running(*arguments) as (process, output):
            output.wait_for(lambda lines: any(after in line for line in lines))
            process.send_signal(by)
            code = process.wait(TIMEOUT)
            output.join()
            return code, "\n".join(output.wait_for(lambda _: True))

    def on_terminal(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end on a terminal; return the exit code and the output."""
        ours, its = pty.openpty()
        environment = {**self.environment, "TERM": "xterm", "COLUMNS": "120"}
        with subprocess.Popen(
            [BIN / "vmsim", *arguments], env=environment, stdin=its, stdout=its, stderr=its
        ) as process:
            os.close(its)
            drawn = b"".join(iter(lambda: _read(ours), b""))
            os.close(ours)
            return process.wait(TIMEOUT), drawn.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the last process has closed the other end
        return b""
