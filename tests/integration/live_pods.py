"""Every event of a cluster's pods, and each time at which a VM has two live pods.

Guarantees: no event is missed. The API server may close the watch of a slow reader; the next watch resumes from its
last version. A watch that cannot resume, or an exception, fails the test.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, Self

from tests.integration.tools import TIMEOUT, Kubectl

_PODS: Final = "/api/v1/pods"


@dataclass(slots=True)
class LivePods:
    """Records each time at which a VM has two live pods.

    A pod is live until it has Succeeded, Failed or is DELETED; a terminating pod is live. VMs are identified by name,
    so a VM that is created again counts as the same one. A watch ends after `life` seconds.
    """

    life: int = 3600
    violations: list[str] = field(default_factory=list)
    events: int = 0
    _owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    _stream: _Stream | None = None

    @contextmanager
    def following(self, kubectl: Kubectl) -> Iterator[Self]:
        """Follow them while the context lasts."""
        listed = json.loads(kubectl("get", "--raw", _PODS))
        for pod in listed["items"]:
            self.take("ADDED", pod)
        stream = self._stream = _Stream(kubectl, listed["metadata"]["resourceVersion"], self.life)
        with ThreadPoolExecutor(max_workers=1) as threads:
            reading = threads.submit(self._read, stream)
            try:
                yield self
            finally:
                stream.close()
        reading.result(TIMEOUT)

    @property
    def watches(self) -> int:
        """The number of watches so far."""
        return self._stream.opened if self._stream else 0

    def _read(self, stream: _Stream) -> None:
        for event in stream:
            self.take(event["type"], event["object"])

    def take(self, kind: str, pod: Any) -> None:
        """Apply one event."""
        self.events += 1
        metadata = pod["metadata"]
        owner = next((o for o in metadata.get("ownerReferences", ()) if o.get("controller")), None)
        done = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if kind == "DELETED" or done or owner is None or owner["kind"] != "VirtualMachine":
            self._owners.pop(metadata["uid"], None)
            return
        vm = f"{metadata['namespace']}/{owner['name']}"
        self._owners[metadata["uid"]] = (vm, metadata["name"])
        pods = sorted(pod for of, pod in self._owners.values() if of == vm)
        if len(pods) > 1:
            self.violations.append(f"VM {vm} has {len(pods)} live pods at once: {', '.join(pods)}")


class _Stream:
    """The events since a resource version, of one watch after the other until it is closed."""

    def __init__(self, kubectl: Kubectl, version: str, life: int) -> None:
        self.opened = 0
        self._kubectl = kubectl
        self._version = version
        self._life = life
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        """Wait for each event. Raises AssertionError where events would be missed."""
        while (process := self._open()) is not None:
            with process:
                assert process.stdout is not None
                assert process.stderr is not None
                for line in process.stdout:
                    if not line.endswith("\n"):
                        break  # cut off: the next watch sends it again
                    event = json.loads(line)
                    assert event["type"] != "ERROR", f"the watch of pods cannot go on: {event['object']}"
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event
                complaint = process.stderr.read().strip()
            assert self._closed or process.returncode == 0, f"the watch of pods has ended: {complaint}"

    def close(self) -> None:
        """End the watch, and open no other."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()

    def _open(self) -> subprocess.Popen[str] | None:
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={self._life}&resourceVersion={self._version}"
        with self._lock:
            if self._closed:
                return None
            self.opened += 1
            self._process = subprocess.Popen(
                [self._kubectl.path, "get", "--raw", f"{_PODS}?{query}"],
                env=self._kubectl.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            return self._process
