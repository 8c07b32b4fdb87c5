"""A real Prometheus with the configuration that the repository ships, as a process of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import yaml

from tests.integration.tools import TIMEOUT

SHIPPED = Path(__file__).resolve().parents[2] / "manifests" / "prometheus"
_QUICK = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus that scrapes and evaluates every second; all else is as shipped."""

    process: subprocess.Popen[bytes]
    url: str
    configuration: Path

    @classmethod
    @contextmanager
    def start(cls, program: str, directory: Path, targets: Sequence[str]) -> Iterator[Self]:
        """Run it on a free port of loopback while the context lasts, with these in place of the shipped targets."""
        shutil.copytree(SHIPPED, directory / "configuration")
        configuration = directory / "configuration" / "prometheus.yml"
        _aim(configuration, targets)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
            "--web.enable-lifecycle",
        ]
        log = directory / "log"
        with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
            running = cls(process, f"http://{address}", configuration)
            try:
                _wait(lambda: running._ready(log), log.read_text)
                yield running
            finally:
                process.terminate()
                process.wait(TIMEOUT)

    def aim(self, targets: Sequence[str], **labels: str) -> None:
        """Replace the targets; they get the labels, as from service discovery."""
        _aim(self.configuration, targets, **labels)
        status, body = self._request("POST", "/-/reload")
        assert status == 200, body

    def query(self, expression: str) -> list[Sample]:
        """Evaluate now; return each sample's labels and value."""
        result = self.api("query", query=expression)
        assert result["resultType"] == "vector", result
        return [(sample["metric"], float(sample["value"][1])) for sample in result["result"]]

    def eventually(self, expression: str, until: Callable[[list[Sample]], bool]) -> list[Sample]:
        """Evaluate until the samples satisfy `until`; return them, or fail with the last ones."""
        found: list[Sample] = []

        def satisfied() -> bool:
            found[:] = self.query(expression)
            return until(found)

        _wait(satisfied, lambda: f"{expression} is {found}")
        return found

    def rules_evaluated_again(self) -> list[Any]:
        """Wait until every rule has been evaluated again; return the rules, each with its health."""
        before = {group["file"] + group["name"]: group["lastEvaluation"] for group in self.api("rules")["groups"]}
        found: list[Any] = []

        def evaluated() -> bool:
            found[:] = self.api("rules")["groups"]
            return all(group["lastEvaluation"] != before[group["file"] + group["name"]] for group in found)

        _wait(evaluated, lambda: f"not every group was evaluated since: {before}")
        return [rule for group in found for rule in group["rules"]]

    def api(self, endpoint: str, **parameters: str) -> Any:
        """Send a request to Prometheus' HTTP API; return the data."""
        status, body = self._request("GET", f"/api/v1/{endpoint}?{urlencode(parameters)}")
        answer = json.loads(body)
        assert (status, answer["status"], answer.get("warnings")) == (200, "success", None), answer
        return answer["data"]

    def _ready(self, log: Path) -> bool:
        assert self.process.poll() is None, log.read_text()
        try:
            return self._request("GET", "/-/ready")[0] == 200
        except (OSError, HTTPException):
            return False

    def _request(self, method: str, path: str) -> tuple[int, str]:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def _aim(configuration: Path, targets: Sequence[str], **labels: str) -> None:
    """Change the targets and the intervals in a configuration file, and nothing else."""
    content = yaml.safe_load(configuration.read_text())
    (job,) = content["scrape_configs"]
    job["static_configs"] = [{"targets": list(targets), "labels": labels}]
    content["global"] = {**content["global"], **_QUICK}
    configuration.write_text(yaml.safe_dump(content))


def _wait(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    ends = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < ends, f"not within {TIMEOUT} s: {complaint()}"
        time.sleep(0.1)
