"""Runs the controller beside a plane, as a process of its own.

Guarantees: it is the one of this package, whatever lies in the current folder; it is noted while it runs, so that the
next command ends it if this one is killed; none is left when the context ends.
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
    """Return the command line of a controller that alone looks after its cluster, on a free port."""
    # -P, since the current folder may hold a package of that name: `controller` is a common one.
    own = (sys.executable, "-P", "-m", "controller")
    return (*own, "--no-leader-elect", "--metrics-bind-address", "127.0.0.1:0", *flags)


def environment(kubeconfig: str) -> dict[str, str]:
    """Return the environment in which it finds a cluster; `kubeconfig` is written as KUBECONFIG is."""
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
        """Return once it has taken in the cluster. Raises ControllerEndedError, NotReadyError."""
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
    """Run a controller while the context lasts; its log and the note of it lie in the folder `state`.

    It has a session of its own, so that a terminal's Ctrl-C reaches us alone.
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
    """Ask it to end, and make it after a while."""
    process.terminate()
    try:
        process.wait(_STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def metrics_url(log: Path) -> str | None:
    """Return where a controller serves its metrics, as the first line of its log tells; None before that is there."""
    with log.open("rb") as lines:
        first = lines.readline()
    try:
        return msgspec.json.decode(first, type=_Starting).metrics
    except msgspec.DecodeError:
        return None


class _Starting(msgspec.Struct):
    metrics: str
