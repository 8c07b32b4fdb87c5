"""A scheduler that is added to a plane is recorded; one that does not start leaves the plane as it was."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.controlplane import processes, record, schedulers
from controller.controlplane.errors import NotReadyError, SchedulerFileError
from controller.controlplane.layout import Layout
from controller.controlplane.ports import Ports
from controller.controlplane.record import Record, Settings
from controller.controlplane.scheduler_start import Schedulers, kept
from controller.controlplane.schedulers import Scheduler
from controller.controlplane.startup import Startup
from tests.unit.controlplane.support import RecordingReporter, lay_out

PORTS = Ports(1, 2, 3, 4, 5, 6)
PACKING = "kube-scheduler-packing"
EMPTY = Record.of(Settings.of({}, None), PORTS)


@dataclass(slots=True)
class Healthy(Startup):
    """A start that succeeds without a process."""

    def run_one(self, name: str) -> None:
        """Find the scheduler healthy."""
        assert name in self.schedulers


@dataclass(slots=True)
class Unhealthy(Startup):
    """A start that fails."""

    def run_one(self, name: str) -> None:
        """Give up."""
        raise NotReadyError(name, self.seconds, self.layout.logs)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """Return the layout of a plane without additional schedulers; its kube-scheduler is a shell."""
    layout = Layout.of(tmp_path)
    lay_out(layout, {"kube-scheduler": ":"})
    yield layout
    processes.kill_all(layout, timeout=5)


def scheduler(*profiles: str, weight: int = 1) -> Scheduler:
    """Return a scheduler with these profiles, named as the first one."""
    entries = [{"schedulerName": profile} for profile in profiles]
    content = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": entries,
        "parallelism": weight,
    }
    return Scheduler(profiles[0], Path(f"{profiles[0]}.yaml"), content)


def adding(layout: Layout, kind: type[Startup], report: RecordingReporter) -> Schedulers:
    """Return the schedulers of a plane whose starts are of this kind."""
    return Schedulers(
        layout,
        report,
        lambda known: kind(layout, known.ports, report, 1.0, time.monotonic() + 1.0, known.schedulers),
    )


def installed(layout: Layout, report: RecordingReporter, *wanted: Scheduler) -> Record:
    """Add schedulers to the plane."""
    known = EMPTY
    for one in wanted:
        known = adding(layout, Healthy, report).start(one, known)
    return known


def test_a_scheduler_that_was_added_is_in_the_record(layout: Layout, report: RecordingReporter) -> None:
    """The next `up` starts it again, at the same port."""
    known = installed(layout, report, scheduler("packing"))

    assert record.read(layout.record) == known
    assert list(known.schedulers) == [PACKING]
    assert layout.program(PACKING).resolve() == layout.program("kube-scheduler").resolve()
    assert "parallelism: 1" in layout.scheduler_config(PACKING).read_text()


def test_a_scheduler_that_the_plane_has_is_not_started_again(layout: Layout, report: RecordingReporter) -> None:
    """`up` can be repeated: its file has not changed, so not even its configuration is checked."""
    known = installed(layout, report, scheduler("packing"))

    adding(layout, Unhealthy, report).converge([scheduler("packing")], known)

    assert report.said == []


def test_another_configuration_keeps_the_port(layout: Layout, report: RecordingReporter) -> None:
    """A scrape of its metrics goes on."""
    known = installed(layout, report, scheduler("packing"))

    changed = adding(layout, Healthy, report).start(scheduler("packing", weight=2), known)

    assert changed == known
    assert "parallelism: 2" in layout.scheduler_config(PACKING).read_text()


def test_a_new_scheduler_that_does_not_start_leaves_no_trace_in_the_record(
    layout: Layout, report: RecordingReporter
) -> None:
    """The next `up` does not try it again."""
    with pytest.raises(NotReadyError):
        adding(layout, Unhealthy, report).start(scheduler("packing"), EMPTY)

    assert record.read(layout.record) == EMPTY
    assert not layout.scheduler_config(PACKING).exists()


def test_a_configuration_that_does_not_start_is_replaced_by_the_earlier_one(
    layout: Layout, report: RecordingReporter
) -> None:
    """The scheduler is started with it."""
    known = installed(layout, report, scheduler("packing"))

    with pytest.raises(NotReadyError):
        adding(layout, Unhealthy, report).start(scheduler("packing", weight=2), known)

    assert record.read(layout.record) == known
    assert "parallelism: 1" in layout.scheduler_config(PACKING).read_text()
    assert layout.pid_file(PACKING).exists()


def test_a_scheduler_with_a_profile_of_another_one_on_the_plane_is_refused(
    layout: Layout, report: RecordingReporter
) -> None:
    """Two processes would place the same pods; the one on the plane stays."""
    known = installed(layout, report, scheduler("packing", "spreading"))

    with pytest.raises(SchedulerFileError, match="profile spreading, which scheduler packing has, too"):
        adding(layout, Healthy, report).converge([scheduler("spreading")], known)

    assert record.read(layout.record) == known


def test_a_repair_starts_the_schedulers_that_keep_their_configuration(
    layout: Layout, report: RecordingReporter
) -> None:
    """One that gets another configuration may be unable to start with its earlier one."""
    known = installed(layout, report, scheduler("packing"), scheduler("spreading"))

    repaired = kept([scheduler("packing", weight=2), scheduler("spreading")], layout, known)

    assert list(repaired.schedulers) == ["kube-scheduler-spreading"]


def test_the_copy_is_the_schedulers_of_the_plane(layout: Layout, report: RecordingReporter) -> None:
    """It is read where profiles are compared."""
    installed(layout, report, scheduler("packing"))

    found = schedulers.installed(PACKING, layout.scheduler_config(PACKING))

    assert (found.name, found.configuration["parallelism"]) == ("packing", 1)
