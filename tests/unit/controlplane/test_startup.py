"""A component that does not come up is restarted and diagnosed, until the deadline."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.controlplane import kwokctl, processes
from controller.controlplane.errors import ComponentFailedError, FullDiskError, NotReadyError, PortCollisionError
from controller.controlplane.kwokctl import Component
from controller.controlplane.layout import Layout
from controller.controlplane.ports import Ports
from controller.controlplane.startup import Startup, stopped_on_failure
from tests.unit.controlplane.support import RecordingReporter, lay_out

WITHOUT_LISTENERS = Ports(1, 1, 1, 1, 1, 1)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """Return the layout of a plane that kwokctl has laid out; its processes end with the test."""
    layout = Layout.of(tmp_path / "the state")
    yield layout
    processes.kill_all(layout, timeout=5)


def lay_out_etcd(layout: Layout, script: str) -> Component:
    """Return a stand-in for etcd that is a shell script."""
    lay_out(layout, {"etcd": script})
    return kwokctl.read_components(layout.workdir)["etcd"]


def startup(layout: Layout, report: RecordingReporter, seconds: float = 10.0) -> Startup:
    """Return a start with a deadline."""
    return Startup(layout, WITHOUT_LISTENERS, report, seconds, time.monotonic() + seconds)


def test_a_component_that_ends_repeatedly_is_an_error_with_its_log(layout: Layout, report: RecordingReporter) -> None:
    """The error contains the end of the log."""
    lay_out_etcd(layout, "echo no space left; exit 1")

    with pytest.raises(ComponentFailedError, match="no space left"):
        startup(layout, report).run_one("etcd")

    assert report.warned == ["etcd ended, starting it again"] * 3


def test_an_additional_scheduler_is_started_with_its_configuration(layout: Layout, report: RecordingReporter) -> None:
    """Its stand-in does not know the flag, and says so in its log."""
    name = "kube-scheduler-packing"
    lay_out(layout, {name: "kwokctl does not know it"})
    start = startup(layout, report)
    start.schedulers = {name: 1}

    with pytest.raises(ComponentFailedError, match=r"--|option") as failed:
        start.run_one(name)

    assert failed.value.log == layout.log(name)


def test_a_taken_port_is_distinguished_from_other_failures(layout: Layout, report: RecordingReporter) -> None:
    """Other ports help; another start does not."""
    lay_out_etcd(layout, "echo listen tcp 127.0.0.1:1: bind: address already in use; exit 1")

    with pytest.raises(PortCollisionError, match="etcd"):
        startup(layout, report).run_one("etcd")


def test_a_full_disk_is_reported_although_a_long_stack_trace_follows(layout: Layout, report: RecordingReporter) -> None:
    """At once, since another start would not help."""
    reason = "write /data/member/wal/0.tmp: no space left on device"
    lay_out_etcd(layout, f"echo {reason}; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo main.go:$i; done; exit 1")

    with pytest.raises(FullDiskError, match=r"no space left on the disk of .* for etcd") as failed:
        startup(layout, report).run_one("etcd")

    assert report.warned == []
    assert "free space" in failed.value.hint


def test_a_component_that_stays_unhealthy_is_an_error_at_the_deadline(
    layout: Layout, report: RecordingReporter
) -> None:
    """Although its process is alive."""
    lay_out_etcd(layout, "while :; do sleep 0.1; done")

    with pytest.raises(NotReadyError, match="etcd"):
        startup(layout, report, seconds=0.2).run_one("etcd")


def test_failed_start_leaves_no_process(layout: Layout, report: RecordingReporter) -> None:
    """After any failure."""
    lay_out_etcd(layout, "while :; do sleep 0.1; done")

    with pytest.raises(NotReadyError), stopped_on_failure(layout, timeout=5):
        startup(layout, report, seconds=0.2).run_one("etcd")

    assert processes.components(processes.running(), layout.workdir) == {}


def test_started_component_is_detached(layout: Layout) -> None:
    """It outlives this program and its terminal, and gets no Ctrl-C."""
    pid = kwokctl.start_component(lay_out_etcd(layout, "while :; do sleep 0.1; done"), layout)

    assert layout.pid_file("etcd").read_text() == str(pid)
    assert not processes.has_ended(pid)
    assert os.getsid(pid) != os.getsid(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_the_log_of_the_previous_run_is_kept(layout: Layout) -> None:
    """So the repair does not remove the reason of a crash."""
    component = lay_out_etcd(layout, "echo output")
    layout.log("etcd").write_text("why it crashed")

    kwokctl.start_component(component, layout)

    assert layout.log("etcd").with_suffix(".log.1").read_text() == "why it crashed"
