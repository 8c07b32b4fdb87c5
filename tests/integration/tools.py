"""What the integration tests use: kubectl as a function, the controller as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PATIENCE = 15.0
"""Seconds within which the cluster must come to what a test waits for."""


class KubectlError(AssertionError):
    """kubectl ended with another exit code than 0."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The real kubectl, bound to a cluster."""

    path: Path
    kubeconfig: Path

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

    def json(self, *arguments: str) -> Any:
        """Run kubectl with `-o json`; return what it printed, decoded."""
        return json.loads(self(*arguments, "-o", "json"))

    def shell(self, script: str, timeout: float = 60.0) -> str:
        """Run a snippet of shell as a person would type it; return what it printed."""
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

    def eventually(self, *arguments: str, until: Callable[[str], bool], patience: float = PATIENCE) -> str:
        """Run kubectl until what it prints satisfies `until`; fail with the last output."""
        ends = time.monotonic() + patience
        while True:
            output = self(*arguments)
            if until(output):
                return output
            if time.monotonic() > ends:
                raise AssertionError(f"kubectl {' '.join(arguments)}: not within {patience} s; last:\n{output}")
            time.sleep(0.1)

    def apply_vm(self, name: str, *, cpu: str = "0.10", memory: str = "0.15", **changes: Any) -> None:
        """Apply a VM; `changes` go into its metadata (annotations, labels, namespace) or, as `running`, its spec."""
        spec: dict[str, Any] = {"resources": {"cpu": cpu, "memory": memory}}
        if "running" in changes:
            spec["running"] = changes.pop("running")
        self("apply", "-f", "-", stdin=json.dumps(vm_manifest(name, spec, **changes)))

    def wait_phase(self, name: str, phase: str, *, namespace: str = "default", patience: float = PATIENCE) -> Any:
        """Wait until a VM has a phase; return the VM."""
        output = self.eventually(
            *("get", "vm", name, "-n", namespace, "-o", "json"),
            until=lambda text: json.loads(text)["status"]["phase"] == phase,
            patience=patience,
        )
        return json.loads(output)


def vm_manifest(name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return a VirtualMachine as a dict."""
    return {
        "apiVersion": "simulation.node-classifier.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": spec,
    }


@dataclass(slots=True)
class Controller:
    """The controller as a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    @contextmanager
    def start(cls, kubeconfig: Path, log: Path, *arguments: str) -> Iterator[Self]:
        """Run the controller while the context lasts; a stop must be clean."""
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "controller", "--kubeconfig", str(kubeconfig)),
                    *("--metrics-bind-address", "127.0.0.1:0", "--log-level", "debug", *arguments),
                ],
                stdout=sink,
                stderr=sink,
            )
        running = cls(process, log)
        try:
            running.wait_for("caches filled")
            yield running
        finally:
            if process.poll() is None:
                assert running.stop() == 0, log.read_text()

    def wait_for(self, event: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for a log line with this event; return it."""
        ends = time.monotonic() + patience
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
        """Where it serves metrics and probes."""
        return re.sub(r"/metrics$", "", str(self.wait_for("starting")["metrics"]))

    def stop(self, number: signal.Signals = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(patience)
