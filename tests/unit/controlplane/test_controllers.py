"""The controller beside a plane: it is this package's, is ready by its own probe, and ends with the context."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from controller.controlplane.controllers import Running, command, running
from controller.controlplane.errors import ControllerEndedError, NotReadyError
from controller.controlplane.leftovers import started_at


def test_a_package_called_controller_in_the_current_folder_is_not_run(tmp_path: Path) -> None:
    """Many projects have a folder of that name."""
    (tmp_path / "controller").mkdir()
    (tmp_path / "controller" / "__init__.py").write_text("")
    (tmp_path / "controller" / "__main__.py").write_text("print('not ours')")

    done = subprocess.run([*command(), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=15)

    assert "Run the controller until SIGTERM or Ctrl-C." in done.stdout


def test_a_controller_is_noted_while_it_runs_and_ends_with_the_context(tmp_path: Path) -> None:
    """The next command finds the note after a kill. This controller has no cluster, so it ends soon."""
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps({"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]}))
    with running(str(config), tmp_path) as one:
        assert len(list((tmp_path / "runs").iterdir())) == 1
    assert started_at(one.process.pid) is None
    assert not (tmp_path / "runs").exists()
    assert one.log == tmp_path / "controller.log"


@contextmanager
def process(script: str, log: Path) -> Iterator[Running]:
    """Run a script instead of a controller."""
    with subprocess.Popen([sys.executable, "-c", script]) as started:
        try:
            yield Running(started, log)
        finally:
            started.kill()


@contextmanager
def answering(*codes: int) -> Iterator[str]:
    """Answer probes with these codes in turn; yield the metrics address of the same server."""
    left = iter(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(next(left))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_a_controller_is_ready_when_its_probe_answers_200(tmp_path: Path) -> None:
    """Listening alone is not enough."""
    log = tmp_path / "controller.log"
    with answering(503, 503, 200) as url, process("import time; time.sleep(60)", log) as one:
        log.write_text(json.dumps({"event": "starting", "metrics": url}) + "\n")
        one.wait_ready(10)


def test_a_controller_that_ends_by_itself_is_an_error_with_its_log(tmp_path: Path) -> None:
    """The error is raised at once, not after the deadline."""
    log = tmp_path / "controller.log"
    log.write_text("error: no cluster\n")
    failure = pytest.raises(ControllerEndedError, match="ended with exit code 3")
    with process("raise SystemExit(3)", log) as one, failure as raised:
        one.wait_ready(10)
    assert str(log) in raised.value.hint


def test_a_controller_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    """The wait is bounded."""
    log = tmp_path / "controller.log"
    log.write_text("")
    with process("import time; time.sleep(60)", log) as one, pytest.raises(NotReadyError, match="the controller"):
        one.wait_ready(0.1)
