"""A process whose standard output and error are closed, full or blocked works and ends as any other."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(60)
TIMEOUT = 20.0
FAULTS = ("closed", "full", "stuck", "no reader")


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Return the credentials of a cluster that is unreachable, so that much is logged."""
    path = tmp_path / "kubeconfig"
    named = {"cluster": "c", "user": "u", "namespace": "default"}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "contexts": [{"name": "x", "context": named}],
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    return path


@contextmanager
def outputs(fault: str) -> Iterator[dict[str, Any]]:
    """Yield the Popen arguments for a process whose standard output and error have a fault."""
    with ExitStack() as stack:
        if fault == "closed":
            # Not with Popen's arguments, which would reopen the closed descriptors.
            yield {"preexec_fn": _close}
            return
        if fault == "full":
            stream: Any = stack.enter_context(Path("/dev/full").open("wb"))
        else:
            reading, writing = os.pipe()
            stack.callback(os.close, writing)
            stream = writing
            if fault == "no reader":
                os.close(reading)
            else:
                stack.callback(os.close, reading)
                _fill(writing)
        yield {"stdout": stream, "stderr": stream}


def _fill(writing: int) -> None:
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)


def _close() -> None:
    for descriptor in range(3):
        os.close(descriptor)


def answer(port: int, path: str) -> tuple[int, str]:
    """Send a request to the process once it listens; return status and text."""
    ends = time.monotonic() + TIMEOUT
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            assert time.monotonic() < ends, "it does not listen"
            time.sleep(0.05)
        finally:
            connection.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("fault", FAULTS)
def test_the_controller_answers_and_stops_with_faulty_outputs(fault: str, kubeconfig: Path) -> None:
    """It counts dropped lines; a blocked output delays its exit by at most a second."""
    port = free_port()
    command = [sys.executable, "-m", "controller", "--kubeconfig", str(kubeconfig), "--log-level", "debug"]
    with (
        outputs(fault) as streams,
        subprocess.Popen([*command, "--metrics-bind-address", f"127.0.0.1:{port}"], **streams) as process,
    ):
        try:
            assert answer(port, "/healthz") == (200, "ok")
            time.sleep(1.5)
            assert answer(port, "/healthz") == (200, "ok")
            [dropped] = [
                float(line.rpartition(" ")[2])
                for line in answer(port, "/metrics")[1].splitlines()
                if line.startswith("vmsim_log_lines_dropped_total")
            ]
            assert dropped > 0 or fault == "stuck"
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_controller_that_cannot_start_has_its_exit_code_with_faulty_outputs(fault: str) -> None:
    """Even when its error message cannot be written."""
    command = [sys.executable, "-m", "controller", "--kubeconfig", "/nowhere"]
    with outputs(fault) as streams, subprocess.Popen(command, **streams) as process:
        try:
            assert process.wait(TIMEOUT) == 1
        finally:
            process.kill()
