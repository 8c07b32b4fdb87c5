"""Tools of the integration tests: kubectl as a function, and the controller as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration import accounts

TIMEOUT = 30.0
"""Seconds within which the cluster must reach the state that a test waits for."""


def eventually(until: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Wait until a condition is true."""
    ends = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < ends, f"not within {timeout} s"
        time.sleep(0.1)


class KubectlError(AssertionError):
    """kubectl ended with another exit code than 0."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The real kubectl, bound to a cluster and to the namespace that commands without one mean."""

    path: Path
    kubeconfig: Path
    namespace: str = "default"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which `kubectl` on the command line is this one."""
        search = f"{self.path.parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": search}

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl; return what it printed. Raises KubectlError with its error output."""
        done = subprocess.run(
            [self.path, *arguments],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl, which must fail; return its error output."""
        complaint = self.complaint(*arguments, stdin=stdin)
        assert complaint, f"kubectl {' '.join(arguments)} was not refused"
        return complaint

    def complaint(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; return its error output, empty if it succeeded."""
        try:
            self(*arguments, stdin=stdin)
        except KubectlError as error:
            return str(error)
        return ""

    def json(self, *arguments: str) -> Any:
        """Run kubectl with `-o json`; return what it printed, decoded."""
        return json.loads(self(*arguments, "-o", "json"))

    def shell(self, script: str, timeout: float = 60.0) -> str:
        """Run a shell snippet as a user would type it; return its output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"{script}\n{done.stderr.strip()}")
        return done.stdout

    def established(self) -> None:
        """Wait until the API server serves our resources, which have just been applied."""
        for plural in ("virtualmachines", "virtualmachinemigrations"):
            wait = ("wait", f"crd/{plural}.simulation.node-classifier.io", "--timeout=30s")
            # First for the names, as in hack/setup_vm_crd.sh, for the same reason.
            self(*wait, f"--for=jsonpath={{.status.acceptedNames.plural}}={plural}")
            self(*wait, "--for=condition=established")

    def eventually(self, *arguments: str, until: Callable[[str], bool], timeout: float = TIMEOUT) -> str:
        """Run kubectl until what it prints satisfies `until`; fail with the last output."""
        ends = time.monotonic() + timeout
        while True:
            output = self(*arguments)
            if until(output):
                return output
            if time.monotonic() > ends:
                raise AssertionError(f"kubectl {' '.join(arguments)}: not within {timeout} s; last:\n{output}")
            time.sleep(0.1)

    def apply_vm(self, name: str, *, cpu: str = "0.10", memory: str = "0.15", **changes: Any) -> None:
        """Apply a VM; `changes` go into its metadata (annotations, labels, namespace) or, as `running`, its spec."""
        spec: dict[str, Any] = {"resources": {"cpu": cpu, "memory": memory}}
        if "running" in changes:
            spec["running"] = changes.pop("running")
        changes.setdefault("namespace", self.namespace)
        self("apply", "-f", "-", stdin=json.dumps(vm_manifest(name, spec, **changes)))

    def wait_phase(self, name: str, phase: str, *, namespace: str | None = None, timeout: float = TIMEOUT) -> Any:
        """Wait until a VM has a phase; return the VM."""
        output = self.eventually(
            *("get", "vm", name, "-n", namespace or self.namespace, "-o", "json"),
            until=lambda text: json.loads(text)["status"]["phase"] == phase,
            timeout=timeout,
        )
        return json.loads(output)

    def wait_vm(self, name: str, until: Callable[[Any], bool], *, timeout: float = TIMEOUT) -> Any:
        """Wait until a VM satisfies `until`; return the VM."""
        command = ("get", "vm", name, "-n", self.namespace, "-o", "json")
        return json.loads(self.eventually(*command, until=lambda text: until(json.loads(text)), timeout=timeout))

    @contextmanager
    def own_namespace(self, directory: Path) -> Iterator[Kubectl]:
        """Create a namespace, and a kubectl for which it is the default; delete it afterwards, without waiting."""
        name = f"own-{uuid4().hex[:8]}"
        kubeconfig = directory / f"{name}.kubeconfig"
        kubeconfig.write_bytes(self.kubeconfig.read_bytes())
        own = Kubectl(self.path, kubeconfig, name)
        own("config", "set-context", "--current", "--namespace", name)
        own("create", "namespace", name)
        # Until the namespace has its service account, the API server refuses every pod in it.
        own("wait", "--for=create", "serviceaccount/default", "--timeout=15s")
        try:
            yield own
        finally:
            own("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Output]:
        """Run a kubectl that does not end by itself (`get -w`) while the context lasts."""
        with subprocess.Popen(
            [self.path, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            output = Output(process.stdout)
            try:
                yield output
            finally:
                process.terminate()
                output.join()


class Output:
    """The lines that a running command has printed so far, read on a thread of its own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, until: Callable[[list[str]], bool], timeout: float = TIMEOUT) -> list[str]:
        """Wait until the lines satisfy `until`; return them, or fail with them."""
        with self._changed:
            if not self._changed.wait_for(lambda: until(self._lines), timeout):
                printed = "\n".join(self._lines)
                raise AssertionError(f"not within {timeout} s; printed:\n{printed}")
            return list(self._lines)

    def join(self) -> None:
        """Wait until the stream has ended."""
        self._thread.join(TIMEOUT)


def vm_manifest(name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return a VirtualMachine as a dict."""
    return {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": spec,
    }


def sweep(kubectl: Kubectl) -> None:
    """Delete every VM of the namespace, and wait until their pods are deleted."""
    kubectl("delete", "vm", "--all", "--wait=true")
    kubectl.eventually("get", "pods", "-o", "name", until=lambda text: not text)


def left_running(directory: Path) -> list[str]:
    """Return the command line of every process that names the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


@dataclass(slots=True)
class Controller:
    """The controller as a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None

    @classmethod
    @contextmanager
    def start(cls, kubeconfig: Path, log: Path, *arguments: str) -> Iterator[Self]:
        """Run the controller on a free port while the context lasts; a stop must be clean.

        `kubeconfig` is the administrator's. The controller has an account with the rights of manifests/base, and must
        send no request beyond them.
        """
        own = accounts.acting(kubeconfig, log.parent)
        common = ("--kubeconfig", str(own), "--metrics-bind-address", "127.0.0.1:0", "--log-level", "debug")
        with cls.run(log, *common, "--no-leader-elect", *arguments) as running:
            running.wait_for("caches filled")
            yield running
        beyond = accounts.forbidden(kubeconfig, log)
        assert not beyond, f"the controller has no right to: {beyond}"

    @classmethod
    @contextmanager
    def run(cls, log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Self]:
        """Run the controller with exactly these flags (and variables) while the context lasts."""
        running = cls(_spawn(log, arguments, environment), log, arguments, environment)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                assert running.stop() == 0, log.read_text()

    def crash_and_restart(self) -> None:
        """Kill the process with SIGKILL, and start another, with a log of its own."""
        self.process.kill()
        self.process.wait(TIMEOUT)
        self.process = _spawn(self.log, self.arguments, self.environment)
        self.wait_for("caches filled")

    def wait_for(self, event: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Wait for a log line with this event; return it."""
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            for line in self.lines():
                if line.get("event") == event:
                    return line
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {event!r} in the log:\n{self.log.read_text()}")

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's whole lines."""
        return [
            json.loads(line)
            for line in self.log.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]

    @property
    def url(self) -> str:
        """The URL of its metrics and probes."""
        return re.sub(r"/metrics$", "", str(self.wait_for("starting")["metrics"]))

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of its server; return status and body."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """Return the sum of a metric's series."""
        samples = (line.rpartition(" ") for line in self.get("/metrics")[1].splitlines())
        return sum(float(value) for series, _, value in samples if series.partition("{")[0] == name)

    def samples(self, name: str, /, **labels: str) -> list[Sample]:
        """Return the samples of this name that have these labels, among others."""
        return [
            sample
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = TIMEOUT) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


def _spawn(log: Path, arguments: tuple[str, ...], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "controller", *arguments],
            env=None if environment is None else {**os.environ, **environment},
            stdout=sink,
            stderr=sink,
        )
