"""Several controllers on one cluster: one leads, and another takes over."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from controller.controlplane.plane import ControlPlane
from tests.integration.live_pods import LivePods
from tests.integration.tools import Controller, Kubectl, eventually, sweep

pytestmark = pytest.mark.timeout(90)

STATUS = "leader_election_master_status"
LEASE = "vmsim-controller"
PAUSE = 2 * 2.2
"""The longest pause between two looks of a standby at the lease, in seconds."""


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Callable[[str], AbstractContextManager[Controller]]:
    """Return a function that starts a replica whose log has this name."""

    def start(name: str) -> AbstractContextManager[Controller]:
        return Controller.start(plane.kubeconfig, tmp_path / f"{name}.log", "--leader-elect")

    return start


@pytest.fixture(autouse=True)
def _no_lease(kubectl: Kubectl) -> Iterator[None]:
    """Delete the lease first: a killed holder's would delay the next test."""
    kubectl("delete", "lease", LEASE, "--ignore-not-found")
    yield
    kubectl("delete", "lease", LEASE, "--ignore-not-found")


def leads(process: Controller) -> bool:
    """Whether a process reports that it leads."""
    return process.metric(STATUS) == 1


def lease(kubectl: Kubectl) -> Any:
    """Return the lease's spec."""
    return json.loads(kubectl("get", "lease", LEASE, "-o", "json"))["spec"]


def test_one_of_three_replicas_leads_and_the_others_are_ready(
    start: Callable[[str], AbstractContextManager[Controller]], kubectl: Kubectl
) -> None:
    """Standbys have warm caches, serve metrics and probes, and write nothing."""
    with ExitStack() as stack:
        first = stack.enter_context(start("first"))
        eventually(lambda: leads(first))
        others = [stack.enter_context(start(name)) for name in ("second", "third")]
        kubectl.apply_vm("vm-1")
        kubectl.wait_phase("vm-1", "Running")

        for other in others:
            other.wait_for("standing by")
            eventually(lambda other=other: other.metric("node_vm_count") >= 1)  # type: ignore[misc]
            assert not leads(other)
            assert other.get("/healthz") == (200, "ok")
            assert other.get("/readyz") == (200, "ok")
            assert other.metric("controller_runtime_reconcile_total") == 0
            assert other.metric("workqueue_depth") == 0
            # Reads alone: the standing by itself is a read, too.
            methods = {sample.labels["method"] for sample in other.samples("rest_client_requests_total")}
            assert methods == {"GET"}
        assert leads(first)
        sweep(kubectl)


def test_a_killed_leader_is_replaced_after_its_lease_expires(
    start: Callable[[str], AbstractContextManager[Controller]], kubectl: Kubectl
) -> None:
    """Within 15 s and two pauses; a VM created meanwhile runs, and none has a second pod."""
    with LivePods().following(kubectl) as watch, start("first") as first:
        eventually(lambda: leads(first))
        with start("second") as second:
            second.wait_for("standing by")
            kubectl.apply_vm("before")
            kubectl.wait_phase("before", "Running")
            first.process.kill()
            first.process.wait()
            died = time.monotonic()
            kubectl.apply_vm("after")
            eventually(lambda: leads(second), timeout=30)
            taken = time.monotonic() - died
            kubectl.wait_phase("after", "Running")

            assert 10 < taken < 15 + 2 * PAUSE + 2
            assert lease(kubectl)["leaseTransitions"] == 1
            assert "Traceback" not in second.log.read_text()
            sweep(kubectl)
    assert watch.violations == []


def test_a_leader_that_stops_releases_its_lease(
    start: Callable[[str], AbstractContextManager[Controller]], kubectl: Kubectl
) -> None:
    """As its last step, so the next one does not wait for the expiry. SIGHUP is a stop, too."""
    with start("first") as first:
        eventually(lambda: leads(first))
        with start("second") as second:
            second.wait_for("standing by")
            assert first.stop(signal.SIGHUP) == 0
            stopped = time.monotonic()
            eventually(lambda: leads(second))
            taken = time.monotonic() - stopped

            assert taken < PAUSE + 2
            found = lease(kubectl)
            assert found["leaseTransitions"] == 1
            assert found["leaseDurationSeconds"] == 15
            for moment in (found["acquireTime"], found["renewTime"]):
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment)
    assert lease(kubectl).get("holderIdentity", "") == ""


def test_a_leader_that_resumes_after_its_lease_expired_ends_without_a_write(
    start: Callable[[str], AbstractContextManager[Controller]], kubectl: Kubectl, plane: ControlPlane, tmp_path: Path
) -> None:
    """Another one leads: exit code 1, with the reason."""
    flags = ("--kubeconfig", str(plane.kubeconfig), "--metrics-bind-address", "127.0.0.1:0", "--log-level", "debug")
    with Controller.run(tmp_path / "first.log", *flags) as first:
        eventually(lambda: leads(first))
        with start("second") as second:
            second.wait_for("standing by")
            os.kill(first.process.pid, signal.SIGSTOP)
            try:
                eventually(lambda: leads(second), timeout=30)
                kubectl.apply_vm("vm-1")
                kubectl.wait_phase("vm-1", "Running")
                kubectl("patch", "vm", "vm-1", "--type=merge", "-p", '{"spec":{"running":false}}')
                kubectl.wait_phase("vm-1", "Stopped")
            finally:
                os.kill(first.process.pid, signal.SIGCONT)
            assert first.process.wait(20) == 1
            assert f"lease {LEASE}" in first.log.read_text().splitlines()[-1]
            assert leads(second)
            assert json.loads(kubectl("get", "vm", "vm-1", "-o", "json"))["status"]["phase"] == "Stopped"
            sweep(kubectl)
