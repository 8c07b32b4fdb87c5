"""Runs the controller beside a plane, as a process of its own.

Guarantees: the controller is this package's, whatever the current folder contains; a note names it while it runs, so
that the next command ends it if this one is killed; it has ended when the context ends.
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from controller.controlplane import leftovers
from controller.controlplane.errors import ControllerEndedError, NotReadyError

_LOG = "controller.log"
_STOP_DEADLINE = 20.0
_POLL = 0.05
_PROBE_TIMEOUT = 5.0


def command(*flags: str) -> tuple[str, ...]:
    """Return the command line of a controller without leader election that serves its metrics on a free port."""
    # -P, since the current folder may contain a package called `controller`, a common name.
    own = (sys.executable, "-P", "-m", "controller")
    return (*own, "--no-leader-elect", "--metrics-bind-address", "127.0.0.1:0", *flags)


def environment(kubeconfig: str) -> dict[str, str]:
    """Return the environment that points it to a cluster; `kubeconfig` has the form of KUBECONFIG."""
    return {**os.environ, "KUBECONFIG": kubeconfig, "VMSIM_KUBECONFIG": ""}


@dataclass(frozen=True, slots=True)
class Running:
    """A controller that was started."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ControllerEndedError if it has ended."""
        if (code := self.process.poll()) is not None:
            raise ControllerEndedError(code, self.log)

    def wait_ready(self, seconds: float) -> None:
        """Return once its /readyz answers 200. Raises ControllerEndedError, NotReadyError."""
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise NotReadyError("the controller", seconds, self.log.parent)
            time.sleep(_POLL)

    def _is_ready(self) -> bool:
        if (url := metrics_url(self.log)) is None:
            return False
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running(kubeconfig: str, state: Path, *flags: str) -> Iterator[Running]:
    """Run a controller while the context lasts; its log and its note are in the folder `state`.

    It has a session of its own, so that a terminal's Ctrl-C reaches only this program.
    """
    log = (state / _LOG).absolute()
    with log.open("w") as sink:
        process = subprocess.Popen(
            command(*flags), env=environment(kubeconfig), stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        with leftovers.noted(state, process.pid):
            yield Running(process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and SIGKILL after 20 s."""
    process.terminate()
    try:
        process.wait(_STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def metrics_url(log: Path) -> str | None:
    """Return the metrics address from the first line of a controller's log; None until that line is written."""
    with log.open("rb") as lines:
        first = lines.readline()
    try:
        return msgspec.json.decode(first, type=_Starting).metrics
    except msgspec.DecodeError:
        return None


class _Starting(msgspec.Struct):
    metrics: str
