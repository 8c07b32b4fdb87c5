"""A control plane object refuses what cannot work before it touches anything."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.controlplane import kwokctl, processes
from controller.controlplane.errors import (
    ComponentFailedError,
    ControlPlaneError,
    FullDiskError,
    InvalidSettingError,
    LayoutError,
    NotRunningError,
    PortCollisionError,
    SettingsChangedError,
)
from controller.controlplane.layout import Layout
from controller.controlplane.plane import ControlPlane, Found
from controller.controlplane.ports import Ports
from controller.controlplane.record import Record, Settings, write
from controller.controlplane.sources import Sources
from controller.controlplane.versions import ETCD
from tests.unit.controlplane.support import RecordingReporter, fill_cache, lay_out, write_go, write_program


def test_unknown_component_cannot_be_stopped(tmp_path: Path) -> None:
    """The error lists those there are."""
    with pytest.raises(InvalidSettingError, match="no kubelet"):
        ControlPlane(tmp_path).stop_component("kubelet")


def test_component_of_no_plane_cannot_be_started(tmp_path: Path) -> None:
    """There is nothing to start it from."""
    with pytest.raises(NotRunningError):
        ControlPlane(tmp_path).start_component("etcd")


def test_fewer_nodes_than_none_are_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(InvalidSettingError, match="nodes"):
        ControlPlane(tmp_path, nodes=-1)


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """Return the layout of a plane that was made earlier and does not run."""
    layout = Layout.of(tmp_path / "state")
    layout.home.mkdir(parents=True)
    write(layout.record, Record.of(Settings.of({}, None), Ports(1, 2, 3, 4, 5, 6)))
    return layout


def test_status_shows_what_does_not_run(made: Layout) -> None:
    """A dead component is shown, not left out."""
    status = ControlPlane(made.directory).status()

    assert [(component.name, component.pid, component.port) for component in status] == [
        ("etcd", None, 1),
        ("kube-apiserver", None, 3),
        ("kube-controller-manager", None, 4),
        ("kube-scheduler", None, 5),
        ("kwok-controller", None, 6),
    ]


def test_plane_of_other_settings_is_kept_and_refused(made: Layout, sources: Sources, report: RecordingReporter) -> None:
    """Nothing is thrown away because somebody passed another flag."""
    args = {"kube-apiserver": {"v": "9"}}
    plane = ControlPlane(made.directory, component_args=args, sources=sources, report=report)

    with pytest.raises(SettingsChangedError, match="other arguments of kube-apiserver"):
        plane.up()

    assert made.record.exists()


def test_plane_of_another_version_is_refused(made: Layout, sources: Sources, report: RecordingReporter) -> None:
    """Nothing is thrown away because somebody pulled."""
    content = json.loads(made.record.read_text())
    content["versions"]["kubernetes"] = "v1.36.0"
    made.record.write_text(json.dumps(content))

    with pytest.raises(SettingsChangedError, match=r"kubernetes v1\.36\.0 instead of v1\.37\.2"):
        ControlPlane(made.directory, sources=sources, report=report).up()


def test_down_removes_everything_but_the_lock(made: Layout, report: RecordingReporter) -> None:
    """Two processes that lock must lock the same file."""
    made.kubeconfig.write_text("apiVersion: v1\n")

    ControlPlane(made.directory, report=report).down()

    assert [path.name for path in made.directory.iterdir()] == ["lock"]


RUNS = "while :; do sleep 0.1; done"


@pytest.fixture
def dead(made: Layout, sources: Sources) -> Iterator[Layout]:
    """Return the layout of a plane that does not run and has objects; all is there to make it anew."""
    fill_cache(sources)
    write_program(sources.beside / "kubectl", "Client Version: v1.37.1")
    made.workdir.mkdir(parents=True)
    made.workdir.joinpath("objects").write_text("what etcd keeps")
    yield made
    processes.kill_all(made, timeout=5)


def repair(layout: Layout, sources: Sources, report: RecordingReporter, etcd: str) -> ControlPlane:
    """Return a plane whose etcd does this when it is started."""
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
def test_what_a_person_can_mend_costs_no_objects(
    dead: Layout, sources: Sources, report: RecordingReporter, etcd: str, error: type[ControlPlaneError]
) -> None:
    """The plane is left as it is."""
    with pytest.raises(error):
        repair(dead, sources, report, etcd).up()

    assert dead.workdir.joinpath("objects").read_text() == "what etcd keeps"
    assert dead.record.exists()


def test_binaries_that_are_gone_are_obtained_again(dead: Layout, sources: Sources, report: RecordingReporter) -> None:
    """Somebody has emptied the cache: that costs no objects either."""
    cached = sources.cache_of(ETCD) / "etcd"
    cached.unlink()
    write_go(Path(sources.search_path) / "go")
    plane = repair(dead, replace(sources, build=True), report, RUNS)
    dead.program("etcd").unlink()
    dead.program("etcd").symlink_to(cached)

    with pytest.raises(ComponentFailedError):  # what the stand-in for Go makes is no etcd
        plane.up()

    assert cached.exists()
    assert dead.workdir.joinpath("objects").exists()


def test_what_cannot_be_started_is_made_anew(dead: Layout, sources: Sources, report: RecordingReporter) -> None:
    """Its objects are lost in any case."""
    plane = repair(dead, sources, report, RUNS)
    dead.kwok_config.unlink()

    with pytest.raises(LayoutError):  # of the new one: the stand-in for kwokctl lays nothing out
        plane.up()

    assert report.warned[:2] == [
        f"{dead.kwok_config} does not tell how etcd is started",
        "the control plane cannot be repaired: making it anew, its objects are lost",
    ]
    assert not dead.workdir.joinpath("objects").exists()


def test_a_plane_that_is_borrowed_is_left_as_it_was_found(
    made: Layout, sources: Sources, report: RecordingReporter
) -> None:
    """One that was stopped keeps its objects, also where it does not come up."""
    plane = ControlPlane(made.directory, wait=0.1, sources=sources, report=report)
    assert plane.found() is Found.STOPPED

    with pytest.raises(ControlPlaneError), plane.borrowed():
        pass

    assert made.record.exists()
    assert plane.pids() == []


def test_a_plane_that_was_not_there_is_gone_after_it_was_borrowed(
    tmp_path: Path, sources: Sources, report: RecordingReporter
) -> None:
    """Half of one included."""
    plane = ControlPlane(tmp_path / "state", sources=sources, report=report)
    assert plane.found() is Found.NOTHING

    with pytest.raises(ControlPlaneError), plane.borrowed():
        pass

    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]
