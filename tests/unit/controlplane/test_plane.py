"""A control plane refuses invalid settings before it starts, and keeps its objects whenever it can."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.controlplane import kwokctl, processes, record, schedulers
from controller.controlplane.errors import (
    ComponentFailedError,
    ControlPlaneError,
    FullDiskError,
    InvalidSettingError,
    LayoutError,
    NotRunningError,
    PortCollisionError,
    SchedulerRefusedError,
    SettingsChangedError,
)
from controller.controlplane.layout import Layout
from controller.controlplane.lock import locked
from controller.controlplane.plane import ControlPlane, Found
from controller.controlplane.ports import Ports
from controller.controlplane.record import Record, Settings, write
from controller.controlplane.sources import Sources
from controller.controlplane.versions import ETCD, KUBERNETES
from tests.unit.controlplane.support import RecordingReporter, fill_cache, lay_out, write_go, write_program


def test_unknown_component_cannot_be_stopped(tmp_path: Path) -> None:
    """The error lists the components."""
    with pytest.raises(InvalidSettingError, match="no component kubelet"):
        ControlPlane(tmp_path).stop_component("kubelet")


def test_a_component_cannot_be_started_without_a_plane(tmp_path: Path) -> None:
    """Its arguments are the plane's."""
    with pytest.raises(NotRunningError):
        ControlPlane(tmp_path).start_component("etcd")


def test_a_negative_number_of_nodes_is_refused(tmp_path: Path) -> None:
    """Before a component is started."""
    with pytest.raises(InvalidSettingError, match="nodes"):
        ControlPlane(tmp_path, nodes=-1)


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """Return the layout of a plane that was created earlier and does not run."""
    layout = Layout.of(tmp_path / "state")
    layout.home.mkdir(parents=True)
    write(layout.record, Record.of(Settings.of({}, None), Ports(1, 2, 3, 4, 5, 6)))
    return layout


def test_status_shows_components_that_do_not_run(made: Layout) -> None:
    """They are not left out."""
    status = ControlPlane(made.directory).status()

    assert [(component.name, component.pid, component.port) for component in status] == [
        ("etcd", None, 1),
        ("kube-apiserver", None, 3),
        ("kube-controller-manager", None, 4),
        ("kube-scheduler", None, 5),
        ("kwok-controller", None, 6),
    ]


def test_status_shows_the_schedulers_that_were_added(made: Layout) -> None:
    """They belong to the plane."""
    known = record.read(made.record)
    assert known is not None
    write(made.record, replace(known, schedulers={"kube-scheduler-packing": 7}))

    added = ControlPlane(made.directory).status()[-1]

    assert (added.name, added.pid, added.port) == ("kube-scheduler-packing", None, 7)


def test_a_plane_with_other_settings_is_refused_and_kept(
    made: Layout, sources: Sources, report: RecordingReporter
) -> None:
    """Another flag does not cost the plane's objects."""
    args = {"kube-apiserver": {"v": "9"}}
    plane = ControlPlane(made.directory, component_args=args, sources=sources, report=report)

    with pytest.raises(SettingsChangedError, match="other arguments of kube-apiserver"):
        plane.up()

    assert made.record.exists()


def test_a_plane_of_another_version_is_refused(made: Layout, sources: Sources, report: RecordingReporter) -> None:
    """An upgrade of vmsim does not cost the plane's objects."""
    content = json.loads(made.record.read_text())
    content["versions"]["kubernetes"] = "v1.36.0"
    made.record.write_text(json.dumps(content))

    with pytest.raises(SettingsChangedError, match=r"kubernetes v1\.36\.0 instead of v1\.37\.2"):
        ControlPlane(made.directory, sources=sources, report=report).up()


def test_down_removes_everything_but_the_lock(made: Layout, report: RecordingReporter) -> None:
    """Two processes must lock the same file."""
    made.kubeconfig.write_text("apiVersion: v1\n")

    ControlPlane(made.directory, report=report).down()

    assert [path.name for path in made.directory.iterdir()] == ["lock"]


RUNS = "while :; do sleep 0.1; done"


@pytest.fixture
def dead(made: Layout, sources: Sources) -> Iterator[Layout]:
    """Return the layout of a plane that does not run and has objects; a new one could be created."""
    fill_cache(sources)
    write_program(sources.beside / "kubectl", "Client Version: v1.37.1")
    made.workdir.mkdir(parents=True)
    made.workdir.joinpath("objects").write_text("what etcd keeps")
    yield made
    processes.kill_all(made, timeout=5)


def repair(layout: Layout, sources: Sources, report: RecordingReporter, etcd: str) -> ControlPlane:
    """Return a plane whose etcd is this script."""
    lay_out(layout, {name: etcd if name == "etcd" else RUNS for name in kwokctl.COMPONENTS})
    return ControlPlane(layout.directory, sources=sources, report=report, wait=5)


@pytest.mark.parametrize(
    ("etcd", "error"),
    [
        ("echo write wal: no space left on device", FullDiskError),
        ("echo listen tcp: bind: address already in use", PortCollisionError),
        ("echo cannot allocate memory", ComponentFailedError),
    ],
    ids=["full disk", "taken port", "anything else"],
)
def test_a_failure_that_the_user_can_fix_costs_no_objects(
    dead: Layout, sources: Sources, report: RecordingReporter, etcd: str, error: type[ControlPlaneError]
) -> None:
    """The plane is left unchanged."""
    with pytest.raises(error):
        repair(dead, sources, report, etcd).up()

    assert dead.workdir.joinpath("objects").read_text() == "what etcd keeps"
    assert dead.record.exists()


def test_a_file_that_kube_scheduler_refuses_creates_no_plane(sources: Sources, report: RecordingReporter) -> None:
    """It is asked before anything starts."""
    state = sources.cache.parent / "state"
    fill_cache(sources)
    write_program(sources.beside / "kubectl", "Client Version: v1.37.1")
    program = sources.cache_of(KUBERNETES) / "kube-scheduler"
    program.write_text(program.read_text() + '[ "$1" = --version ]\n')
    shipped = schedulers.find("most-allocated")
    plane = ControlPlane(state, scheduler_files={"most-allocated": shipped}, sources=sources, report=report)

    with pytest.raises(SchedulerRefusedError):
        plane.up()

    assert plane.found() is Found.NOTHING
    assert [path.name for path in state.iterdir()] == ["lock"]


def test_missing_binaries_are_obtained_again(dead: Layout, sources: Sources, report: RecordingReporter) -> None:
    """An emptied cache costs no objects either."""
    cached = sources.cache_of(ETCD) / "etcd"
    cached.unlink()
    write_go(Path(sources.search_path) / "go")
    plane = repair(dead, replace(sources, build=True), report, RUNS)
    dead.program("etcd").unlink()
    dead.program("etcd").symlink_to(cached)

    with pytest.raises(ComponentFailedError):  # the stand-in for Go builds no real etcd
        plane.up()

    assert cached.exists()
    assert dead.workdir.joinpath("objects").exists()


def test_a_damaged_plane_is_created_again(dead: Layout, sources: Sources, report: RecordingReporter) -> None:
    """Its objects are lost in any case."""
    plane = repair(dead, sources, report, RUNS)
    dead.kwok_config.unlink()

    with pytest.raises(LayoutError):  # of the new one: the stand-in for kwokctl lays nothing out
        plane.up()

    assert report.warned[:2] == [
        f"{dead.kwok_config} does not say how to start etcd",
        "the control plane cannot be repaired: creating it again, its objects are lost",
    ]
    assert not dead.workdir.joinpath("objects").exists()


def test_a_borrowed_plane_is_left_in_the_state_in_which_it_was_found(
    made: Layout, sources: Sources, report: RecordingReporter
) -> None:
    """A stopped one keeps its objects, also if it does not come up."""
    plane = ControlPlane(made.directory, wait=0.1, sources=sources, report=report)
    assert plane.found() is Found.STOPPED

    with pytest.raises(ControlPlaneError), plane.borrowed():
        pass

    assert made.record.exists()
    assert plane.pids() == []


def test_a_plane_that_was_created_to_be_borrowed_is_removed_afterwards(
    tmp_path: Path, sources: Sources, report: RecordingReporter
) -> None:
    """Also an incomplete one."""
    plane = ControlPlane(tmp_path / "state", sources=sources, report=report)
    assert plane.found() is Found.NOTHING

    with pytest.raises(ControlPlaneError), plane.borrowed():
        pass

    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]


def test_a_plane_that_another_process_is_creating_is_kept(
    tmp_path: Path, sources: Sources, report: RecordingReporter
) -> None:
    """The state in which a borrowed plane is found is the one after that process."""
    layout = Layout.of(tmp_path / "state")
    holds = threading.Event()

    def create() -> None:
        with locked(layout.lock, waiting_for="created", timeout=10, report=RecordingReporter()):
            holds.set()
            while not report.progress:  # the borrower waits for the lock
                time.sleep(0.01)
            layout.home.mkdir()
            write(layout.record, Record.of(Settings.of({}, None), Ports(1, 2, 3, 4, 5, 6)))

    other = threading.Thread(target=create)
    other.start()
    assert holds.wait(10)
    plane = ControlPlane(layout.directory, wait=0.1, sources=sources, report=report)
    with pytest.raises(ControlPlaneError), plane.borrowed():
        pass
    other.join()

    assert layout.record.exists()


def test_down_completes_a_removal_that_was_killed(tmp_path: Path, report: RecordingReporter) -> None:
    """Any one of the files that kwokctl needs may be the last."""
    layout = Layout.of(tmp_path)
    layout.home.mkdir()
    layout.kwokctl_log.touch()

    assert ControlPlane(tmp_path, report=report).down()
    assert not layout.home.exists()
